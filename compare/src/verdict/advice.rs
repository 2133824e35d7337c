//! The advice on which mode to choose, in a paragraph based on the figures.

use super::{
    Shown,
    both_modes::BothModes,
    findings::immediate,
    format::{failed, is_all_done, max, p50, p99, percent, time},
};
use crate::stats::Figures;

/// Returns the advice for these figures.
pub(super) fn advice(seen: &BothModes<'_>) -> String {
    let (sync, asynchronous) = (seen.sync, seen.asynchronous);
    let quick = p99(sync.well.response).max(p99(sync.slow.response));
    let mut advice = match immediate(seen).shown {
        Shown::Yes => format!(
            "Call (sync) if the user can do nothing without the result: a password, a payment, the kitchen's acceptance of an order. While the consumers keep up, 99 of 100 got it within {}.",
            time(quick)
        ),
        Shown::No | Shown::NotMeasured => format!(
            "Sync has not shown its advantage here: even with healthy consumers {}, and 99 of 100 users waited up to {}.",
            failed(sync.well),
            time(p99(sync.well.response))
        ),
    };
    let errors = sync.overloaded.failures() + sync.down.failures();
    if errors > 0 {
        advice += &format!(
            " Give it a deadline and a fallback for failures, which {} of the users got in the overload and {} while the consumers were down",
            percent(sync.overloaded),
            percent(sync.down),
        );
        let unsure = sync.sum(|f| f.unsure);
        advice += &match unsure {
            0 => "; none of those errors was wrong this time.".to_owned(),
            _ => format!(
                "; {unsure} of those errors were wrong, since the work was done, so a retry needs the same request id."
            ),
        };
    }
    let is_safe = asynchronous.all().into_iter().all(is_all_done);
    advice += &if is_safe {
        format!(
            " Publish (async) if the work only has to be done for certain: tracking updates, stock, notifications. All {} were done, through overload and outage, and 99 of 100 users waited {} at most; but plan for late results, here up to {}.",
            asynchronous.sum(|f| f.offered),
            time(asynchronous.worst_p99()),
            time(max(asynchronous.overloaded.done_after).max(max(asynchronous.down.done_after))),
        )
    } else {
        format!(
            " Async has not kept its promise here: of {} items {} were done, {} users got an error and {} were answered well for nothing. Look at the broker's alarms and queues before you rely on it.",
            asynchronous.sum(|f| f.offered),
            asynchronous.sum(|f| f.applied),
            asynchronous.sum(Figures::failures),
            asynchronous.sum(|f| f.lost),
        )
    };
    let (asked, published) = (p50(sync.well.response), p50(asynchronous.well.response));
    if sync.well.failures() > 0 {
        return advice;
    }
    advice += &if published < asked {
        format!(
            " With healthy consumers, half of the users got a response after {} by async and after {} by sync, and only sync with the result.",
            time(published),
            time(asked)
        )
    } else {
        format!(
            " With healthy consumers, async is no quicker: half of the users got a response after {}, by sync after {}, and that with the result.",
            time(published),
            time(asked)
        )
    };
    advice
}
