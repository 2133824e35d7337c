//! What every store promises, one function for each promise, run on each implementation.
#![allow(
    clippy::unwrap_used,
    reason = "these are tests, also where they are functions that tests call"
)]

mod audit;
mod dead;
mod entities;
mod epochs;
mod equivalence;
mod fixtures;
mod folder;
mod held;
mod outbox;
mod owners;
mod replies;
mod scans;
mod scheduled;
mod streamless;
mod streams;
mod trials;
mod unsequenced;
mod whole;

use doorstep_store::{MemoryStore, SqliteStore, sqlite::Options};
use folder::Folder;

macro_rules! promises {
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

promises! {
    streams {
        what_was_never_written_is_read_as_absent,
        a_stream_is_read_back_as_it_was_written,
        an_id_of_another_form_is_read_back_as_well,
        a_stream_that_is_only_read_is_created_and_keeps_its_version,
        a_stream_that_has_changed_since_is_a_conflict,
        a_stream_that_was_only_read_and_has_changed_since_is_a_conflict,
        a_stream_that_somebody_else_has_created_is_a_conflict,
        a_cursor_that_would_fall_is_a_conflict,
        the_same_subject_of_another_source_is_another_stream,
        sequences_up_to_the_last_are_kept_and_beyond_are_refused,
    }
    entities {
        a_state_is_read_back_as_it_was_written,
        a_look_shows_what_every_commit_before_it_has_written,
        an_entity_that_is_only_read_has_no_state,
        an_entity_that_has_changed_since_is_a_conflict,
        an_entity_that_was_only_read_and_has_changed_since_is_a_conflict,
        an_entity_that_somebody_else_has_created_is_a_conflict,
    }
    streamless {
        what_belongs_to_no_stream_is_kept_within_the_bound_of_its_kind,
        all_kinds_together_have_a_bound_too,
        the_first_of_a_kind_is_kept_however_large_it_is,
        what_is_resolved_makes_room_again,
        a_conflict_leaves_no_trace_of_what_would_have_overflowed,
    }
    epochs {
        each_start_begins_an_epoch,
        what_is_numbered_carries_the_latest_epoch,
        epochs_of_events_are_read_back_as_they_were,
        old_epochs_are_forgotten,
        the_mark_of_a_restored_store_stays_until_it_is_accepted,
        a_stream_keeps_the_epoch_of_its_cursor,
        two_lineages_list_their_source_until_it_is_accepted,
        a_conflict_lists_its_source_once,
    }
    held {
        what_is_held_next_comes_with_its_stream,
        what_is_held_next_comes_within_its_bytes,
        what_is_due_comes_within_its_bytes_but_always_one,
        a_blocked_stream_brings_its_replay,
        a_held_event_is_read_back_as_it_was,
        places_tell_which_event_is_held_there,
        a_place_that_is_taken_is_a_conflict,
        what_is_released_makes_room_in_the_same_changes,
        what_is_no_longer_held_cannot_be_released_or_put_off,
        a_rising_cursor_drops_what_it_passes,
        what_is_next_becomes_due_when_its_stream_changes,
        what_is_next_keeps_a_due_time_of_its_own,
        what_is_behind_a_blocked_stream_does_not_become_due,
        what_awaits_an_entity_becomes_due_when_that_changes,
        what_is_held_together_with_the_change_that_it_awaits_becomes_due,
        what_was_put_off_awaits_something_else,
        the_longest_due_comes_first,
        a_sweep_finds_what_was_overlooked,
        what_was_put_off_by_a_clock_that_was_fast_is_brought_forward,
    }
    unsequenced {
        an_event_without_a_sequence_has_no_place,
        an_id_is_seen_once,
        the_same_id_of_another_source_was_not_seen,
        old_ids_are_forgotten_a_page_at_a_time,
        the_latest_time_of_what_was_pruned_is_kept,
        a_batch_that_was_read_before_pruning_is_a_conflict,
        sequences_are_given_once,
    }
    trials {
        trials_are_counted_and_forgotten,
        trials_that_somebody_else_has_counted_are_a_conflict,
        old_trials_are_forgotten_a_page_at_a_time,
    }
    owners {
        an_owner_is_read_back_as_it_was_written,
        an_owner_that_has_changed_since_is_a_conflict,
        sources_are_listed_with_their_owners_in_pages,
    }
    replies {
        a_reply_is_read_back_as_it_was_written,
        of_two_replies_to_one_command_the_first_stays,
        old_replies_are_forgotten_a_page_at_a_time,
    }
    scheduled {
        what_is_scheduled_falls_due_at_its_time_among_what_is_held,
        what_is_scheduled_is_released_once,
        what_is_scheduled_and_put_off_is_held_from_then_on,
        what_is_scheduled_is_no_gap_and_blocks_nothing,
        what_is_held_cannot_become_scheduled,
    }
    dead {
        a_dead_letter_is_read_back_as_it_was,
        an_unreadable_message_is_read_back_as_it_was,
        a_dead_letter_that_is_there_already_is_a_conflict,
        a_dead_letter_that_may_be_there_is_left_as_it_is,
        of_a_replay_and_a_skip_the_first_wins,
        a_refusal_anew_may_have_the_id_of_the_one_that_it_settles,
        dead_letters_are_listed_in_pages_the_oldest_first,
        dead_letters_are_found_by_id_and_by_fingerprint,
        a_dead_letter_waits_for_another_stream_until_it_is_settled,
        the_dead_letters_of_one_event_are_found_by_what_their_ids_share,
        an_edit_changes_the_data_and_keeps_what_first_came,
        an_edit_of_what_has_changed_meanwhile_is_a_conflict,
        what_first_came_is_handed_on_to_a_refusal_anew,
        a_dead_letter_that_was_there_counts_as_a_duplicate_and_owes_no_copy,
        kinds_are_summed_up_by_the_oldest_of_each,
        what_a_stream_holds_back_is_listed_by_sequence,
    }
    audit {
        a_record_is_read_back_as_it_was_written,
        a_record_is_written_with_its_change_or_not_at_all,
        records_are_listed_the_newest_first_in_pages,
        above_its_bounds_the_oldest_records_go_and_that_is_told,
    }
    outbox {
        what_is_owed_is_read_in_the_order_of_writing,
        what_is_paid_is_gone_and_paying_again_is_no_conflict,
        what_could_not_be_paid_waits_and_holds_back_no_other,
        what_fails_again_and_again_leaves_room_for_what_is_new,
        numbers_of_the_outbox_are_never_given_again,
        what_was_put_off_by_a_clock_that_was_ahead_is_brought_forward,
    }
    scans {
        entities_are_listed_by_key_in_pages,
        streams_are_listed_by_source_and_subject_in_pages,
        gaps_are_listed_with_what_is_missing,
        rows_of_a_clock_that_was_ahead_are_counted,
        the_summary_counts_everything,
        the_count_of_commits_moves_with_every_write_and_with_nothing_else,
        usage_ends_where_it_began,
    }
    whole {
        a_commit_that_conflicts_writes_nothing_at_all,
        nothing_to_write_is_no_conflict,
    }
}
