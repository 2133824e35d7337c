//! Abandons orders whose time is over and that nobody has ended: those of a process that is gone, and those whose outcome could not be
//! recorded. Whoever is still at one of them finds that it has its outcome.

use std::time::Duration;

use doorstep_contracts::InvoiceNo;
use doorstep_event::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use crate::serve::{
    books::{Books, BooksError},
    role::{EndOrder, Entry, Outcome, label, part_keys},
};

/// How often to look, the first time at once.
const EVERY: Duration = Duration::from_secs(1);

/// No order is begun with a later deadline, unless the clock was ahead.
const LATEST: Duration = Duration::from_hours(2);

/// Abandons what is to be abandoned, now and for ever.
pub(crate) async fn abandon_unfinished(books: Books) {
    let mut timer = interval(EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        match abandon(&books).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "abandoned orders that were left unfinished"),
            Err(e) => tracing::warn!(reason = %e, "unfinished orders cannot be looked after now"),
        }
    }
}

async fn abandon(books: &Books) -> Result<usize, BooksError> {
    let now = Timestamp::now();
    let parts = books.entries(part_keys()).await?;
    let parts = parts.iter().flatten().filter_map(Entry::open);
    let late = parts.flat_map(|open| &open.orders);
    let late = late.filter(|(_, deadline)| is_over(**deadline, now));
    let mut count = 0;
    for (number, _) in late {
        let Ok(order) = InvoiceNo::new(number) else {
            continue;
        };
        let outcome = Outcome::Abandoned {
            reason: label("not finished in time"),
        };
        books.obey(&EndOrder { order, outcome }).await?;
        count += 1;
    }
    Ok(count)
}

/// Returns whether the time of an order with this deadline is over.
fn is_over(deadline: Timestamp, now: Timestamp) -> bool {
    let latest = now.checked_add(LATEST).unwrap_or(Timestamp::MAX);
    deadline < now || deadline > latest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_order_is_over_after_its_deadline_and_if_a_clock_ahead_has_begun_it() {
        let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        for (deadline, over) in [
            ("2026-11-23T09:59:59Z", true),
            ("2026-11-23T10:00:05Z", false),
            ("2026-11-23T11:59:00Z", false),
            ("2027-11-23T10:00:05Z", true),
        ] {
            assert_eq!(is_over(deadline.parse().unwrap(), now), over, "{deadline}");
        }
    }
}
