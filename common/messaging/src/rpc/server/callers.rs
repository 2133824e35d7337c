//! The users of the broker that may send requests.

use std::time::{Duration, Instant};

use doorstep_event::{BrokerUser, Rejection};
use lapin::BasicProperties;

/// The shortest time between two lines of the log.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Checks the user id of requests, which the broker has compared with the connection's user.
#[derive(Debug)]
pub(super) struct Callers {
    /// `None`: any user, and who sends no user id.
    allowed: Option<Vec<BrokerUser>>,
    told: Option<Instant>,
    /// Rejected since the log was told.
    rejected: u64,
}

impl Callers {
    pub(super) fn new(allowed: Option<Vec<BrokerUser>>) -> Self {
        Self {
            allowed,
            told: None,
            rejected: 0,
        }
    }

    /// Why a request is rejected for its user, if it is.
    pub(super) fn reject(&mut self, properties: &BasicProperties, role: &str) -> Option<Rejection> {
        let allowed = self.allowed.as_ref()?;
        let user = properties.user_id().as_ref().map(|user| user.as_str());
        if user.is_some_and(|user| allowed.iter().any(|allowed| allowed.as_str() == user)) {
            return None;
        }
        self.rejected += 1;
        if self.told.is_none_or(|told| told.elapsed() >= LOG_INTERVAL) {
            self.told = Some(Instant::now());
            tracing::warn!(
                role,
                user = user.unwrap_or("-"),
                rejected = self.rejected,
                "a request was rejected: its user is none of --rpc-callers (DOORSTEP_RPC_CALLERS)"
            );
            self.rejected = 0;
        }
        let user = match user {
            Some(user) => format!("user {user:?}"),
            None => "a program that sends no user id".to_owned(),
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
    fn only_users_on_the_list_may_call_where_there_is_a_list() {
        let by = |user: Option<&str>| match user {
            Some(user) => BasicProperties::default().with_user_id(user.into()),
            None => BasicProperties::default(),
        };
        let mut anybody = Callers::new(None);
        assert!(anybody.reject(&by(None), "payments").is_none());
        let mut callers = Callers::new(Some(vec![BrokerUser::new("gateway")]));
        assert!(callers.reject(&by(Some("gateway")), "payments").is_none());
        for other in [None, Some("thief"), Some("")] {
            let refused = callers.reject(&by(other), "payments").unwrap();
            assert_eq!(refused.code, Rejection::FORBIDDEN);
            assert!(refused.detail.contains("DOORSTEP_RPC_CALLERS"));
        }
    }
}
