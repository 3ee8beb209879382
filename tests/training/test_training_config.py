"""The configuration: one schema, errors that name the key."""

import pytest
import yaml

from sciml.errors import ConfigError
from sciml.training.config import TrainConfig, load_yaml, make_config, merge, parse_overrides, resolve_config


def test_yaml_round_trip():
    config = make_config({"batch_size": 8, "data": {"cases": {"train": 5}}, "operator": {"name": "fno", "n_layers": 3}})
    again = make_config(yaml.safe_load(config.to_yaml()))
    assert again == config and again.operator.model_dump()["n_layers"] == 3


def test_order_of_precedence(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("batch_size: 4\noptimizer: {learning_rate: 1e-3}\nseed: 5\n")
    config = resolve_config("cavity", None, file, ["batch_size=6"], {"seed": 7})
    assert (config.batch_size, config.optimizer.learning_rate, config.seed) == (6, 1e-3, 7)
    assert resolve_config("cavity", None, None, ["operator.name=fno"]).operator.name == "fno"
    assert resolve_config("cavity", "deeponet", None, ["operator.name=fno"]).operator.name == "deeponet"


def test_a_budget_is_always_finite_and_the_users_replaces_the_recipes():
    assert make_config({}).budget.epochs == 50
    assert make_config({"budget": {"minutes": 1}}).budget.epochs is None
    recipe = resolve_config("cavity").budget
    assert recipe.minutes and recipe.epochs is None
    chosen = resolve_config("cavity", overrides=["budget.epochs=3"]).budget
    assert chosen.epochs == 3 and chosen.minutes is None
    assert resolve_config("cavity", overrides=["budget.patience=3"]).budget.minutes == recipe.minutes
    again = make_config(yaml.safe_load(make_config({}).to_yaml()))
    assert again.budget.epochs == 50


def test_overrides_are_typed_values():
    assert parse_overrides(["a.b=1e-4", "a.c=[1, 2]", "d=null", "e=x", "f=true"]) == {
        "a": {"b": 1e-4, "c": [1, 2]},
        "d": None,
        "e": "x",
        "f": True,
    }
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batchsize": 3}, "unknown configuration key 'batchsize'; did you mean 'batch_size'"),
        ({"optimizer": {"lrr": 1}}, "unknown configuration key 'optimizer.lrr'"),
        ({"data": {"cases": {"trian": 1}}}, "'data.cases.trian'; did you mean 'train'"),
        ({"batch_size": 0}, "'batch_size' is 0: input should be greater than or equal to 1"),
        ({"optimizer": {"learning_rate": "fast"}}, "'optimizer.learning_rate' is 'fast'"),
        ({"task": {"loss": "l2"}}, "'task.loss' is 'l2'"),
    ],
)
def test_bad_values_name_their_key(values, message):
    with pytest.raises(ConfigError, match=message):
        make_config(values)


@pytest.mark.parametrize("override", ["batch_size", "=3", "a..b=1", "a=[1,"])
def test_bad_overrides(override):
    with pytest.raises(ConfigError, match="cannot read"):
        parse_overrides([override])


@pytest.mark.parametrize("text", ["- 1\n", "a: [1\n", None])
def test_bad_files(tmp_path, text):
    file = tmp_path / "c.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_yaml(file)


def test_unknown_problem_suggests():
    with pytest.raises(ConfigError, match="did you mean 'cavity'"):
        resolve_config("cavty")


def test_every_key_has_a_default():
    assert TrainConfig().model_dump()
