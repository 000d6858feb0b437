"""An ObjectForm: one form of an environment's actions, and the validation of values against it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lab.environments.answer import Values
from lab.environments.schema import Schema, only_value
from lab.errors import EnvError


@dataclass(frozen=True)
class ObjectForm:
    """An object's schema, with the `$defs` that it refers to."""

    schema: Schema

    @cached_property
    def whole(self) -> dict[str, Any]:
        """The schema without OpenEnv's metadata; constants are required, because they identify the form."""
        properties = {
            name: one for name, one in self.schema.get("properties", {}).items() if name != "metadata"
        }
        required = [name for name in self.schema.get("required", []) if name in properties]
        rest = {name: one for name, one in self.schema.items() if name not in ("discriminator", "metadata")}
        required += [name for name in self.given if name not in required]
        return {**rest, "properties": properties, "required": required}

    @cached_property
    def given(self) -> Values:
        """The fields that have only one possible value."""
        known = {name: only_value(self.rule(one)) for name, one in self.schema.get("properties", {}).items()}
        return {name: values[0] for name, values in known.items() if values}

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The fields that the model chooses."""
        return {name: one for name, one in self.whole["properties"].items() if name not in self.given}

    @cached_property
    def asked(self) -> dict[str, Any]:
        """The schema that is requested if this is the only form."""
        required = [name for name in self.whole["required"] if name in self.fields]
        kept = {key: self.schema[key] for key in ("anyOf", "oneOf", "$defs") if key in self.schema}
        return {"type": "object", "properties": self.fields, "required": required} | kept

    def rule(self, rule: Schema) -> Schema:
        """A field's schema with the definitions that it may refer to."""
        return {**rule, "$defs": self.schema.get("$defs", {})}

    def filled(self, found: Values) -> Values:
        """The values with this form's constants."""
        return {**found, **self.given}

    def agrees(self, found: Values) -> bool:
        """Whether the values contradict none of its constants."""
        return all(found.get(name, value) == value for name, value in self.given.items())

    def mistake(self, values: Values) -> str:
        """Why the values are invalid; empty if they are valid.

        Raises:
            ValueError: They are nested too deeply.
            EnvError: The schema itself is invalid.
        """
        import jsonschema

        try:
            found = jsonschema.exceptions.best_match(self._validator.iter_errors(values))
        except RecursionError:  # a self-referencing schema
            raise ValueError("its JSON is nested too deeply") from None
        except Exception as error:  # a foreign schema may make the library raise anything
            what = "The environment's action schema cannot be used."
            raise EnvError(what, why=f"{type(error).__name__}: {error}") from error
        if found is None:
            return ""
        where = ".".join(map(str, found.absolute_path))
        return f"{where}: {found.message}" if where else str(found.message)

    @cached_property
    def _validator(self) -> Any:  # noqa: ANN401  # the library carries no types
        import jsonschema
        from referencing import Registry

        kind = jsonschema.validators.validator_for(self.whole, jsonschema.Draft202012Validator)
        return kind(self.whole, registry=Registry())  # else a foreign schema could fetch any URL
