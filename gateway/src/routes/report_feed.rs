//! The live feed of a report, as server-sent events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderValue,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use doorstep_contracts::{InvoiceNo, ReportId, requests::ReportStatus};
use doorstep_event::Timestamp;
use futures_util::stream;

use super::{
    feed::{BUFFERING, HEARTBEAT, LASTS},
    reports::{self, ReportBody},
};
use crate::{
    app::AppState,
    auth::AuthenticatedUser,
    backends::after,
    feeds::{FeedEvent, FeedPermit},
    http::{PathParam, Problem},
};

/// The interval between two polls of the role.
const PAUSE: Duration = Duration::from_secs(1);

/// Follow a report live, as server-sent events.
///
/// For operators. Each change of a report that is not made yet is an event `progress`; its end is an event `ready`,
/// `failed`, `cancelled` or `expired`, and the last one.
#[utoipa::path(get, operation_id = "follow_report", path = "/v1/reports/{report}/feed", tag = "reports", security(("token" = [])),
    params(("report" = String, Path, description = "The id of the report.")),
    responses(
    (status = 200, description = "The events, and comments in between, until the report is made, the user logs out, the token expires or 15 minutes have passed.", body = String, content_type = "text/event-stream"),
    (status = 429, description = "The user sends too many requests, or has too many in flight, or 8 live feeds already."),
))]
pub(super) async fn feed(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(report): PathParam<ReportId>,
) -> Result<Response, Problem> {
    caller.operator()?;
    reports::view(&app, report).await?;
    // Nothing notifies a feed of reports: it only takes a permit, under a name that no order has.
    let name = InvoiceNo::new(report.subject().as_str()).map_err(|_| Problem::internal())?;
    let permit = app.feeds.enter(&name, &caller.name)?;
    let feed = ReportFeed {
        app,
        end: after(LASTS).min(caller.expires),
        caller: caller.without_permit(),
        report,
        sent: None,
        permit,
        has_ended: false,
    };
    let events = stream::unfold(feed, ReportFeed::next);
    let alive = KeepAlive::new().interval(HEARTBEAT).text("still here");
    let unbuffered = [(BUFFERING, HeaderValue::from_static("no"))];
    Ok((unbuffered, Sse::new(events).keep_alive(alive)).into_response())
}

/// An open feed.
struct ReportFeed {
    app: Arc<AppState>,
    /// The user who reads it.
    caller: AuthenticatedUser,
    report: ReportId,
    /// The progress as it was sent last.
    sent: Option<(ReportStatus, u64)>,
    permit: FeedPermit,
    has_ended: bool,
    end: Timestamp,
}

impl ReportFeed {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        while !self.has_ended {
            if self.sent.is_some() && self.permit.wait(PAUSE).await == FeedEvent::Stop {
                return None;
            }
            if Timestamp::now() >= self.end {
                return None;
            }
            // Sends nothing while the session cannot be verified.
            match self.caller.is_logged_in(&self.app).await {
                Ok(false) => return None,
                Ok(true) => {}
                Err(_) => {
                    self.sent.get_or_insert((ReportStatus::Queued, u64::MAX));
                    continue;
                }
            }
            // A role that does not reply now may reply to the next poll.
            if let Some(event) = self.poll().await {
                return Some((Ok(event), self));
            }
        }
        None
    }

    /// Returns the next event, if there is news.
    async fn poll(&mut self) -> Option<Event> {
        let view = reports::view(&self.app, self.report).await.ok();
        let present = view.as_ref().map(|view| (view.status, view.done));
        let news = view.filter(|_| present != self.sent);
        // From now on there is a pause before each poll.
        self.sent = present
            .or(self.sent)
            .or(Some((ReportStatus::Queued, u64::MAX)));
        let view = news?;
        let status = view.status;
        self.has_ended = !status.is_open();
        let name = match status.is_open() {
            true => "progress",
            false => status.as_str(),
        };
        let body = ReportBody::new(&self.app, view).ok()?;
        // This body always has a form in JSON.
        let data = serde_json::to_string(&body).unwrap_or_default();
        Some(Event::default().event(name).data(data))
    }
}
