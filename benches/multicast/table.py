#!/usr/bin/env python3
"""The table of benches/multicast.sh, from the directories of its cells.

The limit: a code without loss of its own whose sender knows when everybody has enough (the mean of the largest of so many draws of the
negative binomial distribution), in the datagrams of Aldis mode, and one round trip. Beside it the limit by name, which is that of P_MUL as the
standard has it: pieces of MULE's payload, each repeated until everybody has it, by a sender that knows at once.
"""
import json
import math
import sys

RATE, DELAY, SIZE, MTU = 64_000, 0.270, 102_400, 1500


def parity(receivers, loss, k):
    """Datagrams sent, over k, until each of the receivers has k of them."""
    if loss == 0:
        return 1.0
    term = math.exp(k * math.log1p(-loss))
    enough, total, sent = term, float(k), k
    while (lacking := 1 - min(enough, 1.0) ** receivers) > 1e-9:
        total += lacking
        sent += 1
        term *= (sent - 1) / (sent - k) * loss
        enough += term
    return total / k


def limit(receivers, loss):
    # IPv4 and UDP, and what a datagram of symbols has beside them (docs/wire-multicast.md): members take a byte of bits for eight stations.
    headers, overhead = 28, 29 + 1 + receivers // 8
    shard = (MTU - headers - overhead) // 62 * 62
    k = math.ceil(SIZE / shard)
    return parity(receivers, loss, k) * k * (shard + overhead + headers) * 8 / RATE + 2 * DELAY


def limit_by_name(receivers, loss, payload):
    # IPv4 and UDP, and the 16 bytes of a data PDU.
    pieces = math.ceil(payload / (MTU - 28 - 16))
    repeats, power = 0.0, 0
    while (lacking := 1 - (1 - loss**power) ** receivers) > 1e-9:
        repeats += lacking
        power += 1
    return repeats * (payload + pieces * 44) * 8 / RATE + 2 * DELAY


def mean(values):
    return sum(values) / len(values)


groups = {}
for cell in sys.argv[1:]:
    with open(f"{cell}/label") as file:
        label = file.read().strip()
    with open(f"{cell}/result") as file:
        text = file.read()
    if not text:
        with open(f"{cell}/err") as file:
            print(f"{cell}: {label}: {file.read()[-500:]}", file=sys.stderr)
        continue
    result = json.loads(text)
    groups.setdefault((result["receivers"], result["loss"]), {}).setdefault(label, []).append(result)

print("| receivers | loss | limit, s | who | whole, s | least to most | of the limit | sender, bytes | all, bytes | payload |")
print("|---|---|---|---|---|---|---|---|---|---|")
for (receivers, loss), labels in sorted(groups.items()):
    bound = limit(receivers, loss)
    for label, results in labels.items():
        whole = [r["whole_s"] for r in results if r["whole_s"] is not None]
        never = f" ({len(results) - len(whole)} never)" if len(whole) < len(results) else ""
        if not whole:
            print(f"| {receivers} | {loss:.0%} | {bound:.2f} | {label} | never | | | | | |")
            continue
        if label.startswith("mule"):
            label += f" (by name {limit_by_name(receivers, loss, results[0]['payload_bytes']):.2f})"
        print(
            f"| {receivers} | {loss:.0%} | {bound:.2f} | {label}{never} | {mean(whole):.2f} | {min(whole):.1f} to {max(whole):.1f} "
            f"| {mean(whole) / bound:.3f} | {mean([r['sender_bytes_end'] for r in results]):.0f} "
            f"| {mean([r['all_bytes_end'] for r in results]):.0f} | {results[0]['payload_bytes']} |"
        )
