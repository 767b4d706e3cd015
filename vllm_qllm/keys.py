# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_qllm.keys``: make and revoke the API keys of tenants.

    python -m vllm_qllm.keys add web --file tenants.json --classes latency_sensitive,best_effort

prints a key, once; the file gets its hash. A running server reads the file again by itself.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from vllm_qllm.access.key import hash_of, new_key
from vllm_qllm.access.tenants_json import TenantsJson
from vllm_qllm.config import ConfigError, PriorityConfig
from vllm_qllm.config.source import read


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = _parser().parse_args(arguments)
    try:
        return int(args.do(args))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vllm_qllm.keys",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="{add,gateway,list,revoke}")
    add = commands.add_parser("add", help="a new key of a tenant, which is made when there is none")
    add.add_argument("tenant")
    add.add_argument("--classes", help="of a new tenant: names with commas between them")
    add.add_argument("--default-class", help="of a new tenant: for requests that name none")
    add.add_argument("--above", choices=("refuse", "lower"), help="of a new tenant")
    add.add_argument("--operator", action="store_true", help="of a new tenant")
    add.set_defaults(do=_add)
    gateway = commands.add_parser("gateway", help="a new secret with which a gateway names tenants")
    gateway.set_defaults(do=_gateway)
    listed = commands.add_parser("list", help="tenants, and how the hashes of their keys begin")
    listed.set_defaults(do=_list)
    revoke = commands.add_parser("revoke", help="take a key from a tenant")
    revoke.add_argument("tenant")
    revoke.add_argument("hash", help="how its hash begins, as list shows it")
    revoke.set_defaults(do=_revoke)
    for command in (add, gateway, listed, revoke):
        command.add_argument("--file", help="the tenants file", required=command is not add)
        command.add_argument(
            "--priority-config",
            metavar="FILE_OR_JSON",
            help="of the server that reads it: its classes are compared with those of the file",
        )
    return parser


def _config(args: argparse.Namespace) -> PriorityConfig | None:
    if args.priority_config is None:
        return None
    given = dict(read(args.priority_config))
    # Only its classes are of interest, and the policy may be named elsewhere.
    return PriorityConfig.from_dict({name: given[name] for name in given if name == "classes"})


def _add(args: argparse.Namespace) -> int:
    key = new_key()
    fields: dict[str, Any] = {}
    if args.classes is not None:
        fields["classes"] = {name.strip(): {} for name in args.classes.split(",")}
    for field in ("default_class", "above", "operator"):
        if value := getattr(args, field):
            fields[field] = value
    if args.file is None:
        content = TenantsJson.empty(_config(args))
        tenant = content.add_key(args.tenant, hash_of(key), fields)
        content.text()  # which checks it
        print(content.line(args.tenant, tenant), file=sys.stderr)
    else:
        with TenantsJson.changed(args.file, _config(args), new=True) as content:
            content.add_key(args.tenant, hash_of(key), fields)
    print(key)
    return 0


def _gateway(args: argparse.Namespace) -> int:
    key = new_key()
    with TenantsJson.changed(args.file, _config(args), new=True) as content:
        content.data["gateway"] = hash_of(key)
    print(key)
    return 0


def _list(args: argparse.Namespace) -> int:
    for name, tenant in TenantsJson.read(args.file, _config(args)).tenants.items():
        hashes = " ".join(key[:19] for key in tenant.get("keys", ()))
        print(f"{name}: {', '.join(tenant.get('classes', ()))}: {hashes or 'no key'}")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    with TenantsJson.changed(args.file, _config(args)) as content:
        content.revoke_key(args.tenant, args.hash)
    return 0


if __name__ == "__main__":
    sys.exit(main())
