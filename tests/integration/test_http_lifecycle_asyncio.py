"""The lifecycle of connections on asyncio's own loop: the same tests, where callbacks come in another order."""

from __future__ import annotations

from tests.integration.test_http_lifecycle import (
    test_a_full_duplex_echo_streams_both_ways,
    test_a_half_closed_client_gets_all_pipelined_answers,
    test_a_request_may_be_split_behind_a_pipelined_one,
    test_a_stale_connection_is_made_up_for_once,
    test_a_truncated_response_is_truncated_downstream,
    test_an_early_refusal_reaches_a_client_that_still_sends,
    test_an_upgrade_opens_a_tunnel,
    test_bytes_behind_a_response_end_its_connection,
    test_pipelined_requests_are_answered_in_order,
    test_thousands_of_pipelined_requests_are_answered,
)
from tests.support.stage_fixtures import inbound, outbound, side, stage

LOOP = "asyncio"
__all__ = [
    "inbound",
    "outbound",
    "side",
    "stage",
    "test_a_full_duplex_echo_streams_both_ways",
    "test_a_half_closed_client_gets_all_pipelined_answers",
    "test_a_request_may_be_split_behind_a_pipelined_one",
    "test_a_stale_connection_is_made_up_for_once",
    "test_a_truncated_response_is_truncated_downstream",
    "test_an_early_refusal_reaches_a_client_that_still_sends",
    "test_an_upgrade_opens_a_tunnel",
    "test_bytes_behind_a_response_end_its_connection",
    "test_pipelined_requests_are_answered_in_order",
    "test_thousands_of_pipelined_requests_are_answered",
]
