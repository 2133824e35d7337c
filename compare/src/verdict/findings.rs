//! The check of each claim against the figures.

use super::{
    Finding, Shown,
    both_modes::{BothModes, Row},
    format::{failed, is_all_done, max, p50, p99, time},
};
use crate::{
    scenario::Mode,
    stats::{Figures, LATE},
};

/// The time after which users notice a delay. An item done later counts as late, too.
const AT_ONCE_MS: f64 = LATE.as_millis() as f64;
/// The factor by which a response time has to grow to count as affected by the consumers.
const GROWN: f64 = 2.0;

pub(super) fn immediate(seen: &BothModes<'_>) -> Finding {
    let well = seen.sync.well;
    Finding {
        way: Mode::Sync,
        claim: "the response is immediate, and it is the result",
        shown: Shown::if_so(well.failures() == 0 && p99(well.response) <= AT_ONCE_MS),
        because: format!(
            "with healthy consumers, half of the users had the result after {}, 99 of 100 after {}; {}",
            time(p50(well.response)),
            time(p99(well.response)),
            failed(well),
        ),
    }
}

pub(super) fn waits_with_its_servers(seen: &BothModes<'_>) -> Finding {
    let Row {
        well,
        slow,
        overloaded,
        down,
    } = seen.sync;
    let waits = p50(slow.response) >= GROWN * p50(well.response);
    let suffers = overloaded.failures() > 0 || p50(overloaded.response) >= AT_ONCE_MS;
    let fails = down.answered == 0;
    Finding {
        way: Mode::Sync,
        claim: "it waits and fails with its servers",
        shown: Shown::if_so(waits && suffers && fails),
        because: format!(
            "half waited {} with slow consumers, against {} with fast ones; overloaded, {} and half waited {}; down, {}, after {}",
            time(p50(slow.response)),
            time(p50(well.response)),
            failed(overloaded),
            time(p50(overloaded.response)),
            failed(down),
            time(p50(down.response)),
        ),
    }
}

pub(super) fn answers_at_once(seen: &BothModes<'_>) -> Finding {
    let asynchronous = seen.asynchronous;
    let failures = asynchronous.sum(Figures::failures);
    let worst = asynchronous.worst_p99();
    Finding {
        way: Mode::Async,
        claim: "the response is immediate, however the consumers are",
        shown: Shown::if_so(failures == 0 && worst <= AT_ONCE_MS),
        because: format!(
            "99 of 100 users got a response within {} in the worst scenario; {} of {} failed",
            time(worst),
            failures,
            asynchronous.sum(|f| f.offered),
        ),
    }
}

pub(super) fn nothing_lost(seen: &BothModes<'_>) -> Finding {
    let down = seen.asynchronous.down;
    let lost = seen.asynchronous.sum(|f| f.lost);
    let twice = seen.asynchronous.sum(|f| f.twice);
    Finding {
        way: Mode::Async,
        claim: "nothing is lost while a component is down",
        shown: Shown::if_so(is_all_done(down) && lost == 0 && twice == 0),
        because: format!(
            "{} of {} were accepted without a consumer, and {} of them were done after the restart; in all scenarios {lost} were lost and {twice} done twice",
            down.answered, down.offered, down.applied,
        ),
    }
}

pub(super) fn levelled(seen: &BothModes<'_>) -> Finding {
    let (asynchronous, sync) = (seen.asynchronous.overloaded, seen.sync.overloaded);
    let by_sync = sync.failures() > 0 || p50(sync.response) >= AT_ONCE_MS;
    Finding {
        way: Mode::Async,
        claim: "a peak of load is levelled",
        shown: Shown::if_so(is_all_done(asynchronous) && by_sync),
        because: format!(
            "overloaded, {}, and {} of {} were done, the last {} after it was wanted; sync: {}",
            failed(asynchronous),
            asynchronous.applied,
            asynchronous.offered,
            time(max(asynchronous.done_after)),
            failed(sync),
        ),
    }
}

pub(super) fn delayed(seen: &BothModes<'_>) -> Finding {
    let asynchronous = seen.asynchronous;
    let longest = max(asynchronous.overloaded.done_after).max(max(asynchronous.down.done_after));
    Finding {
        way: Mode::Async,
        claim: "the result is known late",
        shown: Shown::if_so(longest >= AT_ONCE_MS),
        because: format!(
            "half of the items were done {} after they were wanted with healthy consumers, {} with overloaded ones and {} with those that were down",
            time(p50(asynchronous.well.done_after)),
            time(p50(asynchronous.overloaded.done_after)),
            time(p50(asynchronous.down.done_after)),
        ),
    }
}

/// No figure here shows how much there is to understand.
pub(super) fn simple() -> Finding {
    Finding {
        way: Mode::Sync,
        claim: "it is simpler",
        shown: Shown::NotMeasured,
        because: "no figure shows it; the meaning of a response is simpler (done, or perhaps not), but it takes deadlines, retries and overload rejections".to_owned(),
    }
}
