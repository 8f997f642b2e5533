def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="end with an error if a test was skipped")


def pytest_sessionfinish(session):
    if session.config.getoption("no_skips", False):
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter.stats.get("skipped"):
            session.exitstatus = 1
