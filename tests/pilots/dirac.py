"""DIRAC's own reader of Machine/Job Features, from its wheel, on the files that a job of ctxinit gets.

What it imports for configuration and logging needs a DIRAC server and is replaced here; the reader itself is not.
"""
import importlib.util
import sys
import types


class Config(dict):
    def setOptionValue(self, key, value):
        self[key] = value

    def getValue(self, key, default=None):
        return self.get(key, default)


class Log:
    def getSubLogger(self, _):
        return self


config = Config()
dirac = types.ModuleType("DIRAC")
dirac.gLogger, dirac.gConfig = Log(), config
locations = types.SimpleNamespace(getCAsLocation=lambda: "/etc/ssl/certs")
dirac.Core = types.SimpleNamespace(Security=types.SimpleNamespace(Locations=locations))
sys.modules["DIRAC"] = dirac

spec = importlib.util.spec_from_file_location("MJF", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
reader = module.MJF()
reader.updateConfig()
assert config["/LocalSite/MACHINEFEATURES/total_cpu"] == "2", config
for key in ["allocated_cpu", "cpu_limit_secs", "job_id", "jobstart_secs", "max_rss_bytes", "wall_limit_secs"]:
    assert config["/LocalSite/JOBFEATURES/" + key], key
try:
    left = reader.getWallClockSecondsLeft()
except TypeError as error:
    # DIRAC 8.0.86 takes int() of a shutdowntime that is not there.
    assert "shutdowntime" not in "".join(config), error
    print("dirac: without a shutdowntime it fails:", error)
else:
    assert 2900 < left <= 3000, left
    print("dirac: seconds left:", left)
