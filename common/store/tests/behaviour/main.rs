//! The promises of every store, one function each, run on each implementation.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic like the tests")]

mod atomicity;
mod audit;
mod crash_counts;
mod dead_letters;
mod deferred;
mod entities;
mod epochs;
mod equivalence;
mod fixtures;
mod folder;
mod leases;
mod outbox;
mod owners;
mod replies;
mod scans;
mod streamless;
mod streams;
mod task_steps;
mod tasks;
mod timers;
mod unsequenced;

use doorstep_store::{MemoryStore, SqliteStore, sqlite::Options};
use folder::Folder;

macro_rules! each_store {
    ($($area:ident { $($promise:ident),* $(,)? })*) => {
        mod in_memory {
            $(mod $area {
                $(#[tokio::test]
                async fn $promise() {
                    crate::$area::$promise(crate::memory()).await;
                })*
            })*
        }

        mod in_sqlite {
            $(mod $area {
                $(#[tokio::test]
                async fn $promise() {
                    let folder = crate::folder::Folder::new();
                    crate::$area::$promise(crate::sqlite(&folder)).await;
                })*
            })*
        }
    };
}

fn memory() -> MemoryStore {
    MemoryStore::new("tracking")
}

fn sqlite(folder: &Folder) -> SqliteStore {
    SqliteStore::open(folder.path(), "tracking", &Options::default()).unwrap()
}

each_store! {
    streams {
        an_unwritten_stream_reads_as_absent,
        a_written_stream_is_read_back,
        an_id_of_another_form_is_read_back,
        a_stream_only_read_keeps_its_version,
        a_stream_changed_since_is_a_conflict,
        a_read_stream_changed_since_is_a_conflict,
        a_stream_created_meanwhile_is_a_conflict,
        a_decreasing_cursor_is_a_conflict,
        a_subject_of_another_source_is_another_stream,
        sequences_above_the_maximum_are_rejected,
    }
    entities {
        a_written_state_is_read_back,
        a_read_shows_every_earlier_commit,
        removed_entities_leave_no_row,
        a_read_entity_has_no_state,
        an_entity_changed_since_is_a_conflict,
        a_read_entity_changed_since_is_a_conflict,
        an_entity_created_meanwhile_is_a_conflict,
    }
    streamless {
        each_kind_is_bounded,
        all_kinds_together_are_bounded,
        the_first_of_a_kind_is_always_kept,
        a_resolved_dead_letter_frees_its_space,
        a_conflict_leaves_no_overflow,
    }
    epochs {
        each_start_begins_an_epoch,
        emitted_events_carry_the_latest_epoch,
        epochs_of_events_are_read_back,
        old_epochs_are_pruned,
        a_restored_mark_stays_until_accepted,
        a_stream_keeps_the_epoch_of_its_cursor,
        two_lineages_list_their_source_until_accepted,
        a_conflict_lists_its_source_once,
    }
    deferred {
        the_next_events_load_with_their_stream,
        the_next_events_load_within_their_bytes,
        due_events_respect_the_byte_limit_except_one,
        a_blocked_stream_loads_its_replay,
        a_deferred_event_is_read_back,
        a_sequence_shows_its_deferred_event,
        an_occupied_sequence_is_a_conflict,
        a_release_makes_room_in_the_same_changes,
        a_missing_event_cannot_be_released_or_rescheduled,
        a_cursor_drops_the_events_it_passes,
        the_next_event_becomes_due_with_its_stream,
        the_next_event_keeps_its_own_due_time,
        a_blocked_stream_makes_nothing_due,
        a_changed_entity_makes_waiting_events_due,
        deferring_beside_the_entity_change_makes_due,
        a_rescheduled_event_waits_for_another_entity,
        the_longest_due_comes_first,
        a_repair_finds_missed_events,
        due_times_ahead_of_the_clock_are_clamped,
    }
    unsequenced {
        an_event_without_a_sequence_has_no_stream,
        an_id_is_seen_once,
        an_id_of_another_source_is_unseen,
        old_ids_are_pruned_in_pages,
        the_latest_pruned_time_is_kept,
        a_batch_read_before_pruning_is_a_conflict,
        sequences_are_emitted_once,
    }
    crash_counts {
        crash_counts_are_raised_and_removed,
        a_crash_count_changed_meanwhile_is_a_conflict,
        old_crash_counts_are_pruned_in_pages,
    }
    owners {
        a_written_owner_is_read_back,
        an_owner_changed_since_is_a_conflict,
        sources_are_listed_with_their_owners_in_pages,
    }
    replies {
        a_written_reply_is_read_back,
        a_second_reply_is_a_conflict,
        old_replies_are_pruned_in_pages,
    }
    timers {
        timers_fall_due_among_deferred_events,
        a_timer_is_released_once,
        a_rescheduled_timer_becomes_a_deferred_event,
        a_timer_is_no_gap_and_blocks_nothing,
        a_deferred_event_cannot_become_a_timer,
    }
    tasks {
        a_started_task_is_read_back,
        a_live_id_is_kept_or_a_conflict,
        a_conflicting_commit_starts_no_task,
        an_end_under_another_token_is_a_conflict,
        a_lease_ends_once,
        a_done_task_is_gone_and_counted,
        a_retry_waits_for_its_time,
        a_release_counts_nothing,
        an_unknown_task_waits_for_a_decision,
        a_cancelled_task_is_claimed_at_once,
        a_decision_needs_the_expected_state,
        a_waiting_task_can_be_retried_now,
        changes_apply_in_their_order,
        leases_are_loaded_with_a_batch,
        tasks_are_listed_in_pages,
        task_times_ahead_of_the_clock_are_clamped,
        task_usage_ends_where_it_began,
    }
    leases {
        due_tasks_are_claimed_in_order,
        a_claim_of_nothing_changes_nothing,
        a_kind_never_exceeds_its_maximum,
        a_lost_reply_is_claimed_again,
        candidates_are_claimed_alone,
        directed_tasks_are_claimed_in_pages,
        progress_comes_with_a_heartbeat,
        further_progress_resets_the_crash_count,
        a_silent_holder_is_taken_over,
        a_beating_holder_is_not_taken_over,
        a_holder_that_is_gone_registers_anew,
        a_stopped_holder_releases_its_tasks,
        tokens_are_never_given_twice,
        a_restored_store_claims_nothing,
    }
    dead_letters {
        a_written_dead_letter_is_read_back,
        a_dead_letter_keeps_its_task,
        an_undecodable_message_is_read_back,
        an_existing_dead_letter_is_a_conflict,
        dead_letters_if_absent_keep_existing_ones,
        the_first_of_replay_and_skip_wins,
        a_new_rejection_may_reuse_the_resolved_id,
        dead_letters_are_paged_oldest_first,
        dead_letters_are_found_by_id_and_fingerprint,
        an_awaiting_dead_letter_stays_until_resolved,
        dead_letters_are_found_by_event_digest,
        an_edit_keeps_the_original_body,
        an_edit_of_changed_data_is_a_conflict,
        a_new_rejection_keeps_the_original_body,
        an_existing_dead_letter_gets_no_copy,
        kinds_are_ordered_by_their_oldest,
        blocked_events_are_listed_by_sequence,
    }
    audit {
        a_written_record_is_read_back,
        a_record_is_committed_with_its_change,
        records_are_paged_newest_first,
        the_oldest_records_are_deleted_and_counted,
    }
    outbox {
        rows_are_read_in_order_of_writing,
        a_row_published_twice_is_no_conflict,
        a_postponed_row_delays_no_other,
        failing_rows_leave_room_for_new_ones,
        row_numbers_are_never_reused,
        retry_times_ahead_of_the_clock_are_clamped,
    }
    scans {
        entities_are_listed_by_key_in_pages,
        streams_are_paged_by_source_and_subject,
        gaps_are_listed_with_missing_sequences,
        rows_dated_ahead_are_counted,
        the_summary_counts_everything,
        only_writes_raise_the_commit_count,
        usage_ends_where_it_began,
    }
    atomicity {
        a_conflicting_commit_writes_nothing,
        an_empty_commit_is_no_conflict,
    }
}
