"""Floor 3: the configuration file: schema, loading, and what it means.

`load.load` goes the way of a file: `document` (YAML with places) -> `schema` (shape) beside `rules` and `references`
(what keys say about each other) -> `build` -> `model.Config`, which is all that the floors above see.

Decision: pydantic is told one plain function for each value; its conversions and messages are never used.
Why: its messages quote inputs, so secrets too, and its conversions accept more than we freeze.
Rejected: reading YAML by `yaml.safe_load` (no places, aliases, `no` is false); rules as pydantic validators (the
first error of a mapping would hide its others).
Cost: the rules look at the raw file through `View` and repeat some keys' names; pydantic is a sixth of the start.
Revisit when: that time is needed for something else; the annotations hold all that a validator of ours would need.
"""
