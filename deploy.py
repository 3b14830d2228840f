"""Builds the functions and deploys the stack; `make deploy` runs it, as `deploy.py CONFIG [ARCHITECTURE]`.

CONFIG is a `samconfig.toml`. Where it names no stack yet, SAM asks for one and for every parameter,
and saves the answers. `sam build` does not read the parameters of `sam deploy`, and
`--parameter-overrides` replaces all of them: so they are read here, and the functions are built for
the `Architecture` that is deployed. An ARCHITECTURE on the command line takes the place of that in
CONFIG for this run.
"""

import os
import subprocess
import sys
from pathlib import Path

from samcli.cli.types import CfnParameterOverridesType
from samcli.lib.config.samconfig import SamConfig

# The default of the template's parameter.
DEFAULT_ARCHITECTURE = "arm64"


def read_settings(config):
    """Returns what `sam deploy` reads from a configuration file, and the parameters among it."""
    settings = SamConfig(config.parent, config.name).get_all(["deploy"], "parameters")
    parameters = CfnParameterOverridesType().convert(settings.get("parameter_overrides", {}), None, None)
    return settings, parameters


def overrides(parameters):
    """Returns the arguments that give these parameters to SAM."""
    quoted = [(name, value.replace('"', '\\"')) for name, value in parameters.items()]
    return ["--parameter-overrides", *(f'{name}="{value}"' for name, value in quoted)]


def build(architecture):
    """Builds the functions for an architecture."""
    # SAM asks for some region even where it only builds.
    region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    command = ["sam", "build", *overrides({"Architecture": architecture})]
    subprocess.run(command, check=True, env={**os.environ, "AWS_DEFAULT_REGION": region})


def deploy(config, architecture, settings, parameters):
    """Deploys what was built for an architecture. Asks first where the file names no stack."""
    command = ["sam", "deploy", "--config-file", str(config)]
    if "stack_name" not in settings:
        command += ["--guided", "--stack-name", "loyalty-codes"]
    if "capabilities" not in settings:
        command += ["--capabilities", "CAPABILITY_IAM"]
    if "fail_on_empty_changeset" not in settings:
        command += ["--no-fail-on-empty-changeset"]
    if parameters.get("Architecture") != architecture:
        command += overrides({**parameters, "Architecture": architecture})
    subprocess.run(command, check=True)


def main(config, given=None):
    if not config.exists():
        # SAM offers to save its answers in a file of that name only if there is one.
        config.write_text("version = 0.1\n")
    settings, parameters = read_settings(config)
    architecture = given or parameters.get("Architecture", DEFAULT_ARCHITECTURE)
    build(architecture)
    deploy(config, architecture, settings, parameters)
    if "stack_name" in settings:
        return
    # The functions were built before SAM asked, and the answers may name another architecture.
    settings, parameters = read_settings(config)
    answered = parameters.get("Architecture", architecture)
    if answered != architecture:
        build(answered)
        deploy(config, answered, settings, parameters)


def say_what_is_next():
    print(
        "\nNext: `TABLE_NAME=… loyaltyctl doctor`, with the output TableName, checks what was deployed and says what is missing."
    )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]).absolute(), *sys.argv[2:])
        say_what_is_next()
    except subprocess.CalledProcessError as error:
        # SAM has said what went wrong.
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
