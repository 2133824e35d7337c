//! The publisher's supervised task: publishes on each connection, and resolves calls that wait too long for one.

use std::sync::Arc;

use lapin::{Channel, types::ShortString};
use tokio::{
    sync::{Mutex, mpsc},
    time::{Duration, Instant, timeout_at},
};

use super::{
    PublishOutcome,
    calls::{PublishCall, PublishCalls},
    publish_loop::{PublishLoop, run},
    stats::PublisherCounters,
};
use crate::{
    admin::verify::{check_user_id, may_publish},
    connection::{
        error::{ConnectError, ConnectErrorKind, Denial, Result},
        supervisor::{Context, Exit, StopReceiver, Supervised},
    },
    settings::BrokerSettings,
    topology::permissions::DEFAULT_EXCHANGE,
};

/// State of the task. When it ends, all calls resolve.
pub(super) struct PublisherTask {
    queue: Mutex<CallQueue>,
    counters: Arc<PublisherCounters>,
    events_exchange: String,
    outage_timeout: Duration,
    outage_began: Instant,
    permission: WritePermission,
    is_user_id_checked: bool,
}

/// Calls, before and after their start.
struct CallQueue {
    inbox: mpsc::Receiver<PublishCall>,
    calls: PublishCalls,
}

impl Drop for PublisherTask {
    fn drop(&mut self) {
        let CallQueue { inbox, calls } = self.queue.get_mut();
        inbox.close();
        calls.resolve_waiting(PublishOutcome::Disconnected);
        while let Ok(call) = inbox.try_recv() {
            calls.start(call);
            calls.resolve_waiting(PublishOutcome::Disconnected);
        }
    }
}

pub(super) struct OpenPublisher {
    channel: Channel,
    /// User id of its messages.
    user_id: Option<ShortString>,
}

impl PublisherTask {
    pub(super) fn new(
        inbox: mpsc::Receiver<PublishCall>,
        counters: Arc<PublisherCounters>,
        settings: &BrokerSettings,
    ) -> Self {
        let calls = PublishCalls::new(counters.clone());
        Self {
            queue: Mutex::new(CallQueue { inbox, calls }),
            counters,
            events_exchange: settings.namespace.events_exchange(),
            outage_timeout: settings.outage_timeout,
            outage_began: Instant::now(),
            permission: WritePermission::Assumed,
            is_user_id_checked: false,
        }
    }
}

impl Supervised for PublisherTask {
    type Resources = OpenPublisher;

    async fn open(&self, context: &Context<'_>) -> Result<OpenPublisher> {
        let (connection, settings) = (context.connection, context.settings);
        let limit = settings.connect_timeout;
        let channel = connection.confirm_channel(limit).await?;
        let user_id = settings.user_id_at(connection.address());
        if let WritePermission::Unverified { exchange } = &self.permission {
            may_publish(connection, exchange, limit).await?;
        }
        if let Some(user_id) = &user_id
            && !self.is_user_id_checked
        {
            let (topology, exchange) = (context.topology, &self.events_exchange);
            check_user_id(connection, topology, exchange, user_id, limit).await?;
        }
        Ok(OpenPublisher { channel, user_id })
    }

    async fn serve(
        &mut self,
        context: &Context<'_>,
        open: &mut OpenPublisher,
        stop: &mut StopReceiver,
    ) -> Exit {
        self.is_user_id_checked = true;
        let (connection, settings) = (context.connection, context.settings);
        let CallQueue { inbox, calls } = self.queue.get_mut();
        loop {
            let exit = run(PublishLoop {
                channel: &open.channel,
                settings,
                health: connection.health(),
                report: context.report,
                counters: &self.counters,
                inbox,
                stop,
                calls,
                events_exchange: &self.events_exchange,
                user_id: open.user_id.as_ref(),
            })
            .await;
            if let Some(exit) = exit {
                return exit;
            }
            match connection.confirm_channel(settings.connect_timeout).await {
                Ok(channel) => open.channel = channel,
                Err(error) => return Exit::Lost(error.to_string()),
            }
        }
    }

    fn lost(&mut self, open: Option<&OpenPublisher>, reason: &str, error: &ConnectError) {
        if open.is_some() {
            self.outage_began = Instant::now();
            self.is_user_id_checked &= error.kind() != ConnectErrorKind::Denied(Denial::UserId);
            self.permission = WritePermission::after(error.kind(), reason, &self.events_exchange);
        }
    }

    /// During an outage, calls wait for a while, then get an outcome.
    async fn while_connecting<T>(&self, attempt: impl Future<Output = T>) -> Option<T> {
        let CallQueue { inbox, calls } = &mut *self.queue.lock().await;
        let until = self.outage_began + self.outage_timeout;
        let mut attempt = std::pin::pin!(attempt);
        let mut inbox_open = true;
        loop {
            let overdue = until <= Instant::now();
            if overdue {
                calls.resolve_waiting(PublishOutcome::Disconnected);
            }
            // Cancel-safe: the attempt is pinned outside and continues, the channel loses nothing, and the deadline is fixed.
            let deadline = timeout_at(until, std::future::pending::<()>());
            tokio::select! {
                done = &mut attempt => return Some(done),
                _ = deadline, if !overdue => {}
                call = inbox.recv(), if overdue && inbox_open => match call {
                    Some(call) => calls.start(call),
                    None => inbox_open = false,
                },
            }
            // Every handle is dropped, so no caller can wait for an outcome.
            if !inbox_open && calls.is_empty() {
                return None;
            }
        }
    }
}

/// The user's permission to publish.
enum WritePermission {
    /// Assumed, because a check would leave a line in the broker's log.
    Assumed,
    /// The broker closed the last connection for a missing permission on this exchange. Another connection would only be closed again, so
    /// check first.
    Unverified { exchange: String },
}

impl WritePermission {
    /// Returns the permission to assume after a connection was lost for this reason.
    fn after(kind: ConnectErrorKind, reason: &str, events_exchange: &str) -> Self {
        match kind {
            ConnectErrorKind::Denied(Denial::UserId) => Self::Assumed,
            // Some programs publish to only one of the two exchanges.
            ConnectErrorKind::Denied(_) if reason.contains(DEFAULT_EXCHANGE) => Self::Unverified {
                exchange: String::new(),
            },
            ConnectErrorKind::Denied(_) => Self::Unverified {
                exchange: events_exchange.to_owned(),
            },
            _ => Self::Assumed,
        }
    }
}
