"""PanDA pilot 3's own reader of Machine/Job Features, from its source, and its look at the clock once a minute."""
import os

from pilot.control.monitor import run_shutdowntime_minute_check
from pilot.util.features import JobFeatures, MachineFeatures

machine, job = MachineFeatures().get(), JobFeatures().get()
assert machine["total_cpu"] == "2", machine
for key in ["allocated_cpu", "cpu_limit_secs", "job_id", "jobstart_secs", "max_rss_bytes", "wall_limit_secs"]:
    assert job[key], key
over = run_shutdowntime_minute_check(5)
# It stops ten minutes before.
assert over == (os.environ["TIME_IS_OVER"] == "yes"), machine
print("panda: time is over:", over)
