"""Starts ministack, an AWS emulator, for one run. It listens on a free loopback port and leaves no files."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3

REGION = "us-east-1"
# Ministack treats this key as the account's root user.
KEY = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def until(condition, what, seconds=60):
    """Returns what `condition` returns as soon as that is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.1)
    return result


class Emulator:
    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.log = folder / "ministack.log"
        self.folder = folder

    def __enter__(self):
        # The deployed functions inherit these variables, and no other. AUTH has each of their calls
        # checked against the policies of their roles. AWS_ENDPOINT_URL points to this
        # emulator, so the template's parameter for another DynamoDB stays as it is on AWS.
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "LOG_LEVEL": "ERROR",
            "AUTH": "true",
            "AWS_ENDPOINT_URL": self.endpoint,
            **KEY,
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).parent / "ministack"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            until(self._answers, "ministack answers")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # Ends ministack and the functions that it runs.
        for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"ministack ended with {self.process.returncode}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def environment(self):
        """Returns the variables for a command: this process's, less those for AWS and of make."""
        others = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "TABLE_NAME")
        ours = {n: v for n, v in os.environ.items() if not n.startswith("AWS_") and n not in others}
        nowhere = str(self.folder / "no-such-file")
        return {
            **ours,
            **KEY,
            "TMPDIR": str(self.folder),
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "AWS_EC2_METADATA_DISABLED": "true",
            "SAM_CLI_TELEMETRY": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def client(self, service):
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEY["AWS_SECRET_ACCESS_KEY"],
        )
