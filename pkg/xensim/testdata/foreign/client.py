"""Drives the simulator with nothing but Python's xmlrpc.client. Prints "ok" at the end."""

import ssl
import sys
import xmlrpc.client

url, password, ca = sys.argv[1:4]
server = xmlrpc.client.ServerProxy(url, context=ssl.create_default_context(cafile=ca))


def call(method, *args):
    target = server
    for part in method.split("."):
        target = getattr(target, part)
    answer = target(*args)
    if answer["Status"] != "Success":
        raise RuntimeError(answer["ErrorDescription"])
    return answer["Value"]


def refused(code, method, *args):
    try:
        call(method, *args)
    except RuntimeError as error:
        assert error.args[0][0] == code, error
        return
    raise AssertionError(f"{method} was not refused with {code}")


refused("SESSION_AUTHENTICATION_FAILED", "session.login_with_password", "root", "wrong", "1.0", "client.py")
session = call("session.login_with_password", "root", password, "1.0", "client.py")
assert len(call("host.get_all", session)) == 3

template = call("VM.get_by_name_label", session, "Debian Bookworm 12")[0]
record = call("VM.get_record", session, template)
assert record["is_a_template"] is True
assert record["memory_static_max"] == str(2 << 30), "integers are text"
assert isinstance(record["snapshot_time"], xmlrpc.client.DateTime)
assert record["HVM_shadow_multiplier"] == 1.0

vm = call("VM.clone", session, template, "from <Python> & \"xmlrpc.client\" ä")
assert call("VM.get_name_label", session, vm) == "from <Python> & \"xmlrpc.client\" ä"
call("VM.set_is_a_template", session, vm, False)
call("VM.remove_from_other_config", session, vm, "disks")
token = call("event.from", session, ["vm"], "", 0.0)["token"]
task = call("Async.VM.start", session, vm, False, False)
while call("task.get_status", session, task) == "pending":
    batch = call("event.from", session, ["vm", f"task/{task}"], token, 5.0)
    token = batch["token"]
    assert all(isinstance(n, int) for n in batch["valid_ref_counts"].values())
assert call("task.get_record", session, task)["status"] == "success", call("task.get_error_info", session, task)
assert call("VM.get_power_state", session, vm) == "Running"
refused("VM_BAD_POWER_STATE", "VM.destroy", session, vm)
call("VM.hard_shutdown", session, vm)
call("VM.destroy", session, vm)
refused("HANDLE_INVALID", "VM.get_record", session, vm)
call("session.logout", session)
refused("SESSION_INVALID", "VM.get_all", session)
print("ok")
