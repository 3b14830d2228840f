"""Deploys the stack to an emulator of AWS, then uses, changes and deletes it. `make test-deploy` runs it.

Each check is a function that takes the stack and raises an exception if it fails. Its name says
what is checked.
The checks run in the order of CHECKS, because most depend on earlier ones.
"""

import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import changing
import delivering
import deploying
import serving
from emulator import Emulator
from stack import Stack

CHECKS = [
    deploying.the_function_is_built_for_the_architecture_that_is_deployed,
    deploying.the_first_deployment_asks_for_parameters_and_saves_them,
    deploying.deploying_again_changes_nothing,
    deploying.values_that_cannot_work_are_refused,
    serving.the_api_has_the_routes_of_the_template,
    serving.an_operator_makes_an_org_and_tills,
    delivering.the_stream_starts_the_delivery_function,
    # Before the first call, because the API's function remembers an org for a minute.
    delivering.an_operator_turns_delivery_on,
    delivering.the_doctor_finds_what_was_deployed,
    *serving.CALLS,
    serving.every_documented_route_was_called,
    serving.refusals_have_the_standard_envelope,
    serving.the_function_has_only_the_permissions_of_its_role,
    delivering.a_request_ends_as_an_email_and_as_a_signed_webhook,
    delivering.the_delivery_function_has_only_the_permissions_of_its_role,
    serving.the_logs_name_requests_but_no_secret_and_no_customer,
    delivering.the_delivery_logs_hold_no_code_and_no_address,
    changing.a_parameter_is_changed_in_the_configuration_file,
    changing.a_deployment_that_fails_is_rolled_back,
    changing.a_rolled_back_stack_can_be_deployed_again,
    changing.messages_are_delivered_after_these_changes,
    changing.the_table_outlives_the_stack,
]
# Later checks depend on these.
NEEDED = {
    deploying.the_first_deployment_asks_for_parameters_and_saves_them,
    serving.the_api_has_the_routes_of_the_template,
    serving.an_operator_makes_an_org_and_tills,
}


def main():
    # A signal that ends this run must end the emulator, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with Emulator(folder) as emulator:
            print(f"ministack answers at {emulator.endpoint}", flush=True)
            stack = Stack(emulator, folder)
            for check in CHECKS:
                print(f"test {check.__name__} ... ", end="", flush=True)
                start = time.monotonic()
                try:
                    check(stack)
                except Exception:
                    failed += 1
                    print(f"FAILED\n{traceback.format_exc()}", flush=True)
                    if check in NEEDED:
                        break
                else:
                    passed += 1
                    print(f"ok ({time.monotonic() - start:.1f} s)", flush=True)
        if failed:
            print(f"\nThe end of ministack's log:\n{emulator.log.read_text()[-4000:]}")
    left = len(CHECKS) - passed - failed
    print(f"\ntest deploy: {passed} passed, {failed} failed, {left} not run")
    return 1 if failed else 0


sys.exit(main())
