"""A greedy client of another stack: writes to one stream as fast as grpcio lets it, reads the results
meanwhile, and makes other calls on the same channel.

Arguments: the server's address, the number of requests, the account that the stream is about, another
one for the other calls. Prints one line: results, those applied, other calls.
"""

import sys
import threading

import grpc

SERVICE = "/passbook.v1.AccountService/"
RESULT_TIME_MAX = 240
OTHER_TIME_MAX = 30


def field(number, value):
    """A field of a message: a text or a message, below 128 bytes."""
    value = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(value)]) + value


def requests(count, account_id):
    money = field(1, "USD") + field(2, "1")
    leg = field(2, field(1, account_id) + field(2, money))
    for number in range(count):
        yield field(1, field(1, f"greedy-{number}") + leg)


def is_applied(response):
    """Whether the result, which is the response's only field, begins with a transaction."""
    at = 1
    while response[at] & 0x80:
        at += 1
    return response[at + 1] == 1 << 3 | 2


def main():
    address, count, account_id, other = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    channel = grpc.insecure_channel(address)
    stream = channel.stream_stream(SERVICE + "StreamTransactions")
    get_account = channel.unary_unary(SERVICE + "GetAccount")
    over, others, failed = threading.Event(), [0], []

    def call_others():
        while not over.is_set():
            try:
                get_account(field(1, other), timeout=OTHER_TIME_MAX)
                others[0] += 1
            except grpc.RpcError as error:
                failed.append(error)
                return

    calls = threading.Thread(target=call_others)
    calls.start()
    results = applied = 0
    try:
        for response in stream(requests(count, account_id), timeout=RESULT_TIME_MAX):
            results += 1
            applied += is_applied(response)
    except grpc.RpcError as error:
        failed.append(error)
    over.set()
    calls.join()
    for error in failed:
        print(f"{error.code()}: {error.details()}", file=sys.stderr)
    print(f"{results} results, {applied} applied, {others[0]} other calls")
    sys.exit(1 if failed else 0)


main()
