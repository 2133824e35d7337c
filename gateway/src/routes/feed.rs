//! The live feed of an order, as server-sent events.
//!
//! The history of an order is numbered, so a reopened feed continues after the number that it is given. Only the
//! present position of the courier is sent.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use doorstep_contracts::InvoiceNo;
use doorstep_event::Timestamp;
use futures_util::stream;

use super::{
    deliveries::{self, DeliveryBody},
    orders::{self, HistoryBody},
};
use crate::{
    app::AppState,
    auth::AuthenticatedUser,
    backends::after,
    feeds::{FeedEvent, FeedPermit},
    http::{PathParam, Problem},
};

/// The interval of comments on a quiet feed. Both ends then notice a lost connection, and no proxy in between takes it
/// for idle.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);
/// The header that keeps buffering proxies, such as nginx, from delaying the feed.
pub(super) const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// The lifetime of a feed, after which its client has to reopen it.
pub(super) const LASTS: Duration = Duration::from_secs(15 * 60);
/// The intervals between two polls after a notification: the roles learn of a change a moment after the gateway.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(750),
    Duration::from_secs(2),
];

/// Follow an order live, as server-sent events.
///
/// Each entry of its history is an event `order` with its number as id. Each change of its delivery is an event
/// `delivery`. Reopen the feed with `Last-Event-ID` to continue after that entry.
#[utoipa::path(get, operation_id = "follow_order", path = "/v1/orders/{order}/feed", tag = "orders", security(("token" = [])),
    params(
        ("order" = String, Path, description = "The order's number."),
        ("Last-Event-ID" = Option<u64>, Header, description = "The number of the last entry received."),
    ),
    responses(
    (status = 200, description = "The events, and comments in between, until the user logs out, the token expires or 15 minutes have passed.", body = String, content_type = "text/event-stream"),
    (status = 400, description = "Last-Event-ID is not a number."),
    (status = 404, description = "The order does not exist, or is another user's."),
    (status = 429, description = "The user sends too many requests, or has too many in flight, or 8 live feeds already."),
))]
pub(super) async fn feed(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(order): PathParam<InvoiceNo>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last = last_seen(&headers)?;
    if orders::seen(&app, &caller, &order).await?.is_none() {
        // The order is another program's, if it exists at all: a feed of an unknown order would stay silent forever.
        let known = orders::view(&app, &order).await?;
        known.ok_or_else(|| Problem::not_found("order"))?;
    }
    let seat = app.feeds.enter(&order, &caller.name)?;
    let feed = Feed {
        app,
        end: after(LASTS).min(caller.expires),
        // Feeds have a limit of their own.
        caller: caller.without_permit(),
        order,
        last,
        delivery: None,
        // Sent at once, so that the client sees the open feed even if nothing happens.
        ready: VecDeque::from([Event::default().comment("open")]),
        seat,
        looks: 0,
        is_first: true,
    };
    let events = stream::unfold(feed, Feed::next);
    let alive = KeepAlive::new().interval(HEARTBEAT).text("still here");
    let unbuffered = [(BUFFERING, HeaderValue::from_static("no"))];
    Ok((unbuffered, Sse::new(events).keep_alive(alive)).into_response())
}

fn last_seen(headers: &HeaderMap) -> Result<u64, Problem> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(0);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Problem::malformed("Last-Event-ID is not the id of an event"))
}

/// An open feed.
struct Feed {
    app: Arc<AppState>,
    /// The user who reads it.
    caller: AuthenticatedUser,
    order: InvoiceNo,
    /// The number of the last entry sent.
    last: u64,
    /// The delivery as it was sent last.
    delivery: Option<String>,
    /// The events to be sent.
    ready: VecDeque<Event>,
    seat: FeedPermit,
    /// Polls since the last notification.
    looks: usize,
    is_first: bool,
    end: Timestamp,
}

impl Feed {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            if self.is_first {
                self.is_first = false;
            } else {
                let pause = PAUSES[self.looks.min(PAUSES.len() - 1)];
                match self.seat.wait(pause).await {
                    FeedEvent::Stop => return None,
                    FeedEvent::News => self.looks = 0,
                    FeedEvent::Time => self.looks += 1,
                }
                if Timestamp::now() >= self.end {
                    return None;
                }
            }
            match self.caller.is_logged_in(&self.app).await {
                Ok(true) => {}
                Ok(false) => return None,
                // Sends nothing while the session cannot be verified.
                Err(_) => continue,
            }
            // A role that does not reply now may reply to the next poll: the feed continues with its present events.
            if self.poll_order().await.is_ok() && !self.ready.is_empty() {
                self.looks = 0;
            }
        }
    }

    async fn poll_order(&mut self) -> Result<(), Problem> {
        if let Some(view) = orders::view(&self.app, &self.order).await? {
            for entry in view.history {
                if entry.number > self.last {
                    self.last = entry.number;
                    self.push("order", Some(entry.number), &HistoryBody::from(entry));
                }
            }
        }
        if let Some(view) = deliveries::assigned_view(&self.app, &self.order).await? {
            let body = DeliveryBody::from(view);
            let text = serde_json::to_string(&body).ok();
            if text != self.delivery {
                self.delivery = text;
                self.push("delivery", None, &body);
            }
        }
        Ok(())
    }

    fn push(&mut self, name: &str, id: Option<u64>, body: &impl serde::Serialize) {
        // These bodies always have a form in JSON.
        let data = serde_json::to_string(body).unwrap_or_default();
        let mut event = Event::default().event(name).data(data);
        if let Some(id) = id {
            event = event.id(id.to_string());
        }
        self.ready.push_back(event);
    }
}
