//! The broker users that may send requests.

use std::time::{Duration, Instant};

use doorstep_event::{BrokerUser, Rejection};
use lapin::BasicProperties;

const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Checks the user id of requests, which the broker has validated.
#[derive(Debug)]
pub(super) struct Callers {
    /// `None` allows any user, and requests without a user id.
    allowed: Option<Vec<BrokerUser>>,
    last_logged: Option<Instant>,
    /// Requests rejected since the last log line.
    rejected: u64,
}

impl Callers {
    pub(super) fn new(allowed: Option<Vec<BrokerUser>>) -> Self {
        Self {
            allowed,
            last_logged: None,
            rejected: 0,
        }
    }

    /// Returns the rejection if the user may not send requests.
    pub(super) fn reject(&mut self, properties: &BasicProperties, role: &str) -> Option<Rejection> {
        let allowed = self.allowed.as_ref()?;
        let user = properties.user_id().as_ref().map(|user| user.as_str());
        if user.is_some_and(|user| allowed.iter().any(|allowed| allowed.as_str() == user)) {
            return None;
        }
        self.rejected += 1;
        if self
            .last_logged
            .is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL)
        {
            self.last_logged = Some(Instant::now());
            tracing::warn!(
                role,
                user = user.unwrap_or("-"),
                rejected = self.rejected,
                "request rejected: its user is not listed in --rpc-callers (DOORSTEP_RPC_CALLERS)"
            );
            self.rejected = 0;
        }
        let user = match user {
            Some(user) => format!("user {user:?}"),
            None => "a program without a user id".to_owned(),
        };
        Some(Rejection::new(
            Rejection::FORBIDDEN,
            format!("{user} may not send requests to this role: name it in DOORSTEP_RPC_CALLERS"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_restricts_callers_to_its_users() {
        let by = |user: Option<&str>| match user {
            Some(user) => BasicProperties::default().with_user_id(user.into()),
            None => BasicProperties::default(),
        };
        let mut any_user = Callers::new(None);
        assert!(any_user.reject(&by(None), "payments").is_none());
        let mut callers = Callers::new(Some(vec![BrokerUser::new("gateway")]));
        assert!(callers.reject(&by(Some("gateway")), "payments").is_none());
        for other in [None, Some("thief"), Some("")] {
            let rejection = callers.reject(&by(other), "payments").unwrap();
            assert_eq!(rejection.code, Rejection::FORBIDDEN);
            assert!(rejection.detail.contains("DOORSTEP_RPC_CALLERS"));
        }
    }
}
