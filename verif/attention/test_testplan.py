"""The testplan and the tests of this package agree."""

from pathlib import Path

from verif.testplan import check_plans

HERE = Path(__file__).parent


def test_plan_and_tests_agree():
    check_plans(HERE, [HERE / "testplan.toml"], stages={"V1", "V2", "V3"}, names_block=False)
