"""Which test proves which row of `threats.md`: every row of the data plane, by the functions that fail without it.

`PROOFS` is read by people first; the tests below only see that it is whole and that what it names is there.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

THREATS = Path(__file__).parents[2] / "shared" / "threats.md"

FAULTS = "tests.faults."
HEADERS = "tests.integration.test_http_headers."
FRAMING = "tests.integration.test_http_framing."
LIFECYCLE = "tests.integration.test_http_lifecycle."
MALFORMED = "tests.integration.test_http_malformed."
DEADLINES = "tests.integration.test_http_deadlines."
RECORDS = "tests.integration.test_http_records."
LIMITS = "tests.integration.test_listener_limits."
IN_SHAKE = "tests.integration.test_handshake_refusals_matrix."
OUT_SHAKE = "tests.integration.test_handshake_refusals_outbound."
SHAKES = "tests.integration.test_tls_handshakes."
REFUSALS = "tests.integration.test_tls_refusals."
RESUMPTION = "tests.integration.test_tls_resumption."
RESUMED_IN = "tests.integration.test_resumption_inbound."
TRUST = "tests.integration.test_tls_trust."
OPENSSL = "tests.interop.test_openssl_negotiation."
AUTHORIZATION = "tests.unit.policy.test_authorization."
ROUTING = "tests.unit.policy.test_routing."
PATTERNS = "tests.unit.policy.test_patterns."
PATHS = "tests.unit.policy.test_paths."
POLICY_HEADERS = "tests.unit.policy.test_headers."
PEER = "tests.unit.identity.test_peer."
XFCC = "tests.unit.wire.test_xfcc."
HEAD = "tests.unit.wire.test_head."

PROOFS: dict[str, tuple[str, ...]] = {
    # --- A: headers and identity
    "A1": (
        HEADERS + "test_forged_identity_never_arrives",
        POLICY_HEADERS + "test_an_identity_field_is_ours_in_every_spelling",
        POLICY_HEADERS + "test_sanitize_removes_every_identity_field_doubled_ones_too",
        "tests.interop.test_curl.test_headers_that_name_an_identity_do_not_pass",
    ),
    "A2": (
        ROUTING + "test_a_route_on_a_field_that_is_gone_by_then_is_an_error",
        HEADERS + "test_forged_identity_never_arrives",
        POLICY_HEADERS + "test_an_alias_of_a_forwarding_field_is_dropped_but_never_read",
    ),
    "A3": (
        HEADERS + "test_connection_cannot_take_away_what_is_for_all",
        HEADERS + "test_forged_identity_never_arrives",
        HEAD + "test_nominated_fields_are_removed_but_never_protected_ones",
    ),
    "A4": (
        IN_SHAKE + "test_a_certificate_that_is_no_svid_never_reaches_the_app",
        PEER + "test_strange_bytes_in_a_name_are_no_name",
        XFCC + "test_a_name_with_other_bytes_is_not_written",
        XFCC + "test_a_subject_that_is_no_rfc_4514_text_cannot_leave_its_quotes",
        XFCC + "test_no_certificate_can_write_a_second_element",
        FAULTS
        + "test_hostile_text_in_logs.test_certificates_with_hostile_names_leave_harmless_events",
    ),
    "A5": (
        XFCC + "test_what_we_write_is_read_back",
        XFCC + "test_a_malformed_value_is_refused_whole",
        "tests.unit.policy.test_forwarding.test_a_received_value_that_is_not_valid_is_dropped_whole",
        "tests.unit.policy.test_forwarding."
        "test_received_identity_counts_only_by_mode_and_from_who_may_forward",
    ),
    "A6": (
        FRAMING + "test_a_request_arrives_as_it_was_meant",  # "forged trailers"
        POLICY_HEADERS + "test_a_trailer_with_a_meaning_to_routing_or_framing_is_removed",
        "tests.unit.wire.test_chunked."
        "test_trailers_are_kept_unless_they_could_be_taken_for_something_else",
    ),
    "A7": (
        FAULTS
        + "test_path_with_two_readings.test_an_override_of_the_path_is_gone_where_rules_name_paths",
        POLICY_HEADERS + "test_sanitize_removes_override_fields_where_rules_name_paths_or_methods",
    ),
    "A8": (
        ROUTING + "test_a_header_decides_only_when_all_readers_see_one_value",
        AUTHORIZATION + "test_a_deny_rule_is_not_dodged_by_another_spelling",
    ),
    "A9": (
        HEADERS + "test_a_forged_answer_of_upstream_never_arrives",
        HEADERS + "test_a_local_reply_says_why_to_the_app_alone",
        RECORDS + "test_a_denied_peer_gets_a_bare_403",
    ),
    # --- B: certificates and rules
    "B1": (
        IN_SHAKE + "test_a_certificate_that_is_no_svid_never_reaches_the_app",
        PEER + "test_a_certificate_that_breaks_the_svid_rules_gives_no_identity",
        AUTHORIZATION + "test_a_certificate_without_a_clean_identity_matches_no_rule_of_any_kind",
    ),
    "B2": (
        IN_SHAKE + "test_a_spiffe_id_that_is_not_canonical_is_nobody",
        PEER + "test_a_spiffe_id_that_is_not_canonical_is_no_identity",
        PATTERNS + "test_anything_else_is_no_identity",
    ),
    "B3": (
        PATTERNS + "test_a_rule_without_a_star_matches_exactly_one_id",
        PATTERNS + "test_a_spiffe_pattern_covers_whole_segments",
        PATTERNS + "test_a_spiffe_pattern_never_leaves_its_trust_domain",
        PATTERNS + "test_a_thousand_stars_are_one_comparison_each",
    ),
    "B4": (
        AUTHORIZATION + "test_a_wildcard_certificate_matches_no_dns_rule",
        AUTHORIZATION + "test_a_common_name_beside_a_san_counts_for_nothing",
        PEER + "test_a_common_name_counts_only_without_any_other_name",
    ),
    "B5": (
        PEER + "test_names_are_compared_by_type",
        AUTHORIZATION + "test_a_rule_looks_only_at_names_of_its_own_type",
    ),
    "B6": (
        TRUST + "test_a_root_speaks_for_its_own_trust_domain_only",
        TRUST + "test_a_server_of_a_foreign_domain_is_refused_too",
        RESUMPTION + "test_several_trust_domains_or_a_revocation_list_switch_resumption_off",
    ),
    "B7": (
        REFUSALS + "test_a_bad_client_certificate_is_refused_with_its_reason",
        REFUSALS + "test_a_server_for_clients_only_is_refused",
        PEER + "test_a_leaf_serves_its_purpose_only",
        "tests.unit.identity.test_credentials.test_a_bundle_holds_authorities_only",
    ),
    "B8": (
        SHAKES + "test_a_failing_verify_callback_refuses_the_handshake",
        SHAKES + "test_a_failing_protocol_callback_refuses_the_handshake",
        IN_SHAKE + "test_a_bad_client_certificate_gets_its_alert_and_its_reason",
    ),
    # --- C: sessions
    "C1": (
        RESUMPTION + "test_a_chain_of_resumptions_ends_within_the_lifetime",
        RESUMPTION + "test_a_certificate_that_expired_meanwhile_is_refused_on_both_sides",
        RESUMPTION + "test_several_trust_domains_or_a_revocation_list_switch_resumption_off",
        RESUMED_IN + "test_a_session_ends_with_its_certificate",
        RESUMED_IN + "test_a_denied_peer_is_denied_again_when_it_resumes",
    ),
    "C2": (
        RESUMPTION + "test_a_session_is_worth_nothing_elsewhere",
        RESUMED_IN + "test_a_session_of_one_listener_is_a_full_handshake_at_another",
    ),
    "C3": (
        IN_SHAKE + "test_an_odd_server_name_changes_nothing",
        SHAKES + "test_odd_server_names_change_nothing_about_verification",
    ),
    # Keys differ per generation. "Per worker" waits for `workers`, which is refused as not built yet [3].
    "C7": (
        RESUMED_IN + "test_a_reload_ends_all_sessions",
        RESUMPTION + "test_a_session_is_worth_nothing_elsewhere",
    ),
    # --- D: the handshake
    "D1": (
        FAULTS
        + "test_plaintext_before_the_handshake."
        + "test_plaintext_and_the_end_at_once_never_reach_the_app",
        FAULTS
        + "test_plaintext_before_the_handshake."
        + "test_an_upstream_that_answers_in_clear_and_ends_is_a_failed_connect",
        IN_SHAKE + "test_plaintext_behind_a_client_hello_is_never_a_request",
        IN_SHAKE + "test_plain_http_gets_a_short_text",
        OUT_SHAKE + "test_plaintext_in_front_of_the_handshake_is_not_data",
    ),
    "D2": (
        OPENSSL + "test_an_old_version_is_refused_with_its_alert",
        OPENSSL + "test_a_cipher_without_forward_secrecy_aead_or_certificate_is_refused",
        OPENSSL + "test_renegotiation_is_refused",
        OPENSSL + "test_early_data_is_not_taken",
        OPENSSL + "test_h2_alone_is_refused_with_its_alert",
        IN_SHAKE + "test_no_overlap_of_application_protocols_is_refused",
        OUT_SHAKE + "test_old_versions_and_protocols_of_a_peer_are_refused",
    ),
    "D3": (
        FAULTS + "test_handshake_flood.test_a_flood_of_handshakes_keeps_nobody_out",
        LIMITS + "test_only_a_quarter_of_the_connections_may_be_in_handshake",
        LIMITS + "test_more_handshakes_than_slots_wait_and_are_not_refused",
        LIMITS + "test_silent_handshakes_of_one_source_do_not_keep_out_another",
        LIMITS + "test_the_rate_of_handshakes_is_bounded_and_nobody_is_refused",
    ),
    "D4": (
        FAULTS + "test_large_chains.test_two_hundred_large_chains_cost_no_memory",
        FAULTS + "test_large_chains.test_two_hundred_half_sent_chains_cost_no_memory",
        FAULTS + "test_large_chains.test_a_chain_deeper_than_five_is_refused",
        FAULTS + "test_key_update_storm.test_key_updates_do_not_put_off_the_idle_deadline",
        REFUSALS + "test_a_peer_that_sends_too_much_is_refused",
        IN_SHAKE + "test_a_handshake_in_single_bytes_succeeds",
        "tests.unit.identity.test_floors.test_each_release_line_has_its_own_floor",
    ),
    # --- E: resources and bugs
    # Eight of the nine places; the PROXY header is [op], and its key refused. A tunnel that trickles is a use of it:
    # the ends of a silent one and of one that is not read are shown.
    "E1": (
        FAULTS + "test_trickling_peer.test_a_handshake_that_trickles_is_ended",
        FAULTS + "test_trickling_peer.test_the_key_of_the_proxy_header_is_refused_as_not_built_yet",
        FAULTS + "test_trickling_peer.test_a_request_that_trickles_is_ended",
        FAULTS + "test_trickling_peer.test_a_response_that_trickles_is_ended",
        FAULTS + "test_trickling_peer.test_a_reader_that_trickles_is_ended",
        FAULTS + "test_trickling_peer.test_a_tunnel_that_is_not_read_is_ended",
        FAULTS + "test_trickling_peer.test_a_lingering_close_that_trickles_is_ended",
        FAULTS + "test_trickling_peer.test_a_lingering_close_takes_64_kib_and_no_more",
        DEADLINES + "test_a_silent_tunnel_is_cut",
        "tests.unit.http.test_server.test_lingering_ends_with_too_many_bytes",
    ),
    "E2": (
        FAULTS + "test_fast_peer.test_a_plain_peer_at_line_rate_gets_its_share_of_each_turn",
        FAULTS + "test_fast_peer.test_a_tls_peer_at_line_rate_gets_its_share_of_each_turn",
        FAULTS + "test_fast_peer.test_a_peer_that_pipelines_without_end_does_not_keep_out_another",
    ),
    "E3": (
        FAULTS
        + "test_pipelining_to_a_sleeping_reader."
        + "test_refused_requests_to_a_sleeping_reader_cost_no_memory",
        FAULTS
        + "test_pipelining_to_a_sleeping_reader."
        + "test_every_one_of_them_is_answered_when_the_reader_wakes",
        LIFECYCLE + "test_thousands_of_pipelined_requests_are_answered",
    ),
    "E4": (
        FAULTS + "test_head_in_single_bytes.test_a_head_in_single_bytes_is_looked_at_once",
        FAULTS + "test_head_in_single_bytes.test_a_head_in_single_bytes_is_served",
        FAULTS + "test_head_in_single_bytes.test_a_head_without_end_is_refused",
        HEAD + "test_the_end_of_a_head_is_found_from_where_the_last_search_left_off",
    ),
    "E5": (
        FAULTS
        + "test_chunks_of_one_byte."
        + "test_a_request_in_chunks_of_one_byte_is_sent_on_in_large_ones",
        FAULTS
        + "test_chunks_of_one_byte."
        + "test_a_response_in_chunks_of_one_byte_is_sent_on_in_large_ones",
        FAULTS + "test_chunks_of_one_byte.test_what_a_body_may_waste_is_bounded",
        FAULTS + "test_chunks_of_one_byte.test_empty_lines_without_end_are_refused",
        "tests.unit.wire.test_chunked.test_extensions_are_bounded_over_the_whole_message",
    ),
    "E6": (
        FAULTS + "test_hostile_fill.test_a_process_full_of_waiting_bytes_refuses_new_exchanges",
        "tests.integration.test_http_pressure.test_a_sleeping_client_stops_upstream",
        "tests.integration.test_http_pressure.test_a_sleeping_upstream_stops_the_client",
    ),
    "E7": (
        FAULTS + "test_line_cache_under_flood.test_a_million_different_lines_stay_within_the_bound",
        FAULTS + "test_line_cache_under_flood.test_no_credential_is_kept",
        FAULTS + "test_line_cache_under_flood.test_a_line_beyond_128_bytes_is_not_kept",
        FAULTS + "test_line_cache_under_flood.test_a_hostile_line_leaves_nothing_behind",
    ),
    "E8": (
        FAULTS
        + "test_bug_in_a_callback."
        + "test_a_bug_in_a_callback_ends_its_own_connection_and_nothing_else",
        FAULTS
        + "test_bug_in_a_callback_optimized."
        + "test_a_bug_in_a_callback_is_no_worse_without_assertions",
        FAULTS
        + "test_bug_in_a_callback_optimized."
        + "test_every_assertion_says_why_no_input_reaches_it",
        "tests.component.test_alarm."
        "test_a_bug_in_what_it_calls_is_reported_and_it_may_be_set_again",
    ),
    "E9": (
        FAULTS
        + "test_killed_while_waiting.test_a_dial_that_is_cancelled_at_any_await_leaves_no_socket",
        FAULTS
        + "test_killed_while_waiting."
        + "test_an_exchange_that_is_killed_in_any_state_leaves_one_record_and_nothing_else",
        FAULTS
        + "test_killed_while_waiting."
        + "test_clients_that_leave_while_upstream_shakes_hands_leave_nothing",
        "tests.unit.proxy.test_exchange_table."
        "test_every_event_in_every_state_does_what_the_table_says",
        "tests.unit.wire.test_lifecycle.test_nothing_happens_after_the_end",
    ),
    # --- F: targets
    "F1": (
        FAULTS + "test_path_with_two_readings.test_a_path_with_two_readings_never_reaches_the_app",
        FAULTS + "test_path_with_two_readings.test_a_path_with_two_readings_never_selects_a_route",
        PATHS + "test_a_path_that_readers_could_see_differently_is_not_normal",
    ),
    "F2": (
        PATHS + "test_a_prefix_ends_at_the_border_of_a_segment",
        PATHS + "test_a_rewrite_whose_result_is_not_normal_is_refused",
        FAULTS + "test_path_with_two_readings.test_what_has_no_path_or_another_one_is_denied",
    ),
    "F3": (
        HEADERS + "test_the_authority_selects_the_service",
        HEAD + "test_a_request_without_exactly_one_valid_host_is_refused",
        HEAD + "test_the_authority_is_the_targets_or_else_host",
        "tests.unit.policy.test_hosts."
        "test_an_authority_that_somebody_could_read_differently_is_refused",
    ),
    "F4": (
        FAULTS + "test_path_with_two_readings.test_what_has_no_path_or_another_one_is_denied",
        LIFECYCLE + "test_connect_is_not_for_peers",
        AUTHORIZATION + "test_an_allow_rule_needs_method_and_path",
        AUTHORIZATION + "test_a_deny_on_paths_alone_meets_connect",
    ),
    "F5": (
        LIFECYCLE + "test_only_listed_protocols_can_be_asked_for",
        LIFECYCLE + "test_an_upgrade_opens_a_tunnel",
        "tests.interop.test_curl_http2.test_an_offer_to_upgrade_to_h2c_is_not_taken_up",
        "tests.interop.test_curl_http2.test_the_preface_of_http_2_is_refused_by_an_http_listener",
        MALFORMED + "test_a_malformed_response_becomes_502_and_its_connection_ends",
    ),
    # --- G: framing
    "G1": (
        MALFORMED + "test_a_malformed_request_is_refused_and_nothing_behind_it_served",
        MALFORMED + "test_a_malformed_request_is_refused_byte_by_byte",
        "tests.unit.wire.test_oracles.test_what_we_accept_both_oracles_accept_and_read_alike",
        "tests.unit.wire.test_oracles."
        "test_what_we_refuse_one_oracle_refuses_too_or_the_rfc_says_why",
        "tests.unit.wire.test_transcripts."
        "test_requests_mean_the_same_in_whatever_pieces_they_arrive",
    ),
    "G2": (
        FAULTS
        + "test_second_user_of_a_connection.test_the_second_user_never_sees_bytes_of_the_first",
        FAULTS
        + "test_second_user_of_a_connection."
        + "test_late_bytes_of_the_first_exchange_end_an_idle_connection",
        FAULTS + "test_second_user_of_a_connection.test_a_tunnel_is_never_used_again",
        LIFECYCLE + "test_connect_opens_a_tunnel_to_a_configured_service",
    ),
    "G3": (
        MALFORMED + "test_a_malformed_response_becomes_502_and_its_connection_ends",
        LIFECYCLE + "test_bytes_behind_a_response_end_its_connection",
        LIFECYCLE + "test_bytes_on_an_idle_connection_end_it",
        HEAD + "test_a_response_is_read_as_strictly_as_a_request",
    ),
    "G4": (
        MALFORMED + "test_a_malformed_request_is_refused_and_nothing_behind_it_served",
        MALFORMED + "test_a_malformed_chunk_ends_the_request_and_the_connection",
        MALFORMED + "test_a_malformed_body_of_a_response_cuts_without_a_last_chunk",
        "tests.unit.wire.test_lifecycle.test_a_local_reply_never_stands_inside_a_response",
    ),
    # --- H: where requests go
    "H1": (
        HEADERS + "test_unknown_authorities_are_404_and_never_dialled",
        LIFECYCLE + "test_connect_reaches_nothing_else",
        "tests.integration.test_listener_addresses.test_our_own_listeners_are_never_dialled",
        HEADERS + "test_a_loop_is_refused",
    ),
    "H7": (
        HEADERS + "test_pages_of_others_are_refused",
        HEADERS + "test_own_pages_pass",
        "tests.unit.policy.test_browser.test_a_page_is_foreign_by_origin_or_by_site",
        "tests.interop.test_websocket_httpx.test_a_websocket_from_a_foreign_page_is_refused",
        "tests.integration.test_admin_pages.test_web_pages_learn_nothing",
    ),
    # --- I: what is written
    "I5": (
        FAULTS + "test_hostile_text_in_logs.test_every_line_is_one_record_and_harmless",
        FAULTS
        + "test_hostile_text_in_logs.test_certificates_with_hostile_names_leave_harmless_events",
        FAULTS + "test_hostile_text_in_logs.test_a_hostile_server_name_leaves_a_harmless_event",
        RECORDS + "test_a_query_is_not_logged",
        "tests.unit.telemetry.test_text.test_no_text_leaves_more_than_harmless_characters",
        "tests.unit.telemetry.test_text.test_no_text_takes_more_than_its_kibibyte",
    ),
    "I7": (
        FAULTS + "test_series_under_flood.test_ten_thousand_hosts_make_no_series",
        FAULTS + "test_series_under_flood.test_refused_handshakes_of_everybody_make_no_series",
        "tests.unit.telemetry.test_metrics.test_no_flood_makes_a_new_series",
        "tests.unit.telemetry.test_refusals."
        "test_a_hundred_thousand_refusals_are_fewer_than_a_hundred_lines",
    ),
}


def test_every_row_of_the_data_plane_has_a_proof() -> None:
    """The document stands beside the project; without it there is nothing to compare with."""
    if not THREATS.exists():
        pytest.skip(f"{THREATS} is not here")
    rows = re.findall(
        r"^\| ([A-Z]\d+) \| data plane \|", THREATS.read_text(encoding="utf-8"), re.MULTILINE
    )

    assert list(PROOFS) == rows


@pytest.mark.parametrize("row", PROOFS)
def test_what_proves_a_row_exists(row: str) -> None:
    """A renamed or removed test takes its proof along: said here, not found out later."""
    proofs = PROOFS[row]

    assert proofs
    assert len(set(proofs)) == len(proofs)
    for proof in proofs:
        module, _, name = proof.rpartition(".")
        function = getattr(importlib.import_module(module), name, None)
        assert function is not None, f"{proof} does not exist"
        assert inspect.isfunction(function), proof
        assert name.startswith("test_"), f"{proof} is not collected"
        assert Path(str(inspect.getsourcefile(inspect.unwrap(function)))).name.startswith(
            "test_"
        ), proof
