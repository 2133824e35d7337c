//! The list of all RPC requests, with their roles, replies and error codes.
//!
//! | type | kind | purpose |
//! | --- | --- | --- |
//! | [`AuthorizePayment`] `payments.authorize.v1` | command | hold an amount for an order |
//! | [`CapturePayment`] `payments.capture.v1` | command | charge a held amount |
//! | [`VoidPayment`] `payments.void.v1` | command | release a held amount |
//! | [`RefundPayment`] `payments.refund.v1` | command | return a captured amount |
//! | [`ReadPayment`] `payments.payment.v1` | query | the status of a payment |
//! | [`ConfigureRestaurant`] `restaurant.configure.v1` | command | create or change a restaurant |
//! | [`QuoteOrder`] `restaurant.quote.v1` | query | the price of an order |
//! | [`ConfirmOrder`] `restaurant.confirm.v1` | command | make an order, with a time |
//! | [`ReadMenu`] `restaurant.menu.v1` | query | a restaurant's menu and hours |
//! | [`ReadOrder`] `orders.order.v1` | query | the status of an order |
//! | [`ReadDelivery`] `tracking.delivery.v1` | query | the status of a delivery |
//! | [`RequestReport`] `reports.request.v1` | command | have a report made |
//! | [`CancelReport`] `reports.cancel.v1` | command | stop the making of a report |
//! | [`ReadReport`] `reports.report.v1` | query | the state of a report |
//! | [`ListReports`] `reports.list.v1` | query | the latest reports of a requester |
//! | [`ReadMails`] `notifications.mails.v1` | query | a user's mails and choices |
//!
//! `golden/requests/` contains a request and a reply for each version. They are also the examples in [`REQUESTS`], from which an OpenAPI
//! document or a help text can be built. Error codes are part of the contract; those of any request, such as `bad_request`, are in
//! [`doorstep_event::Rejection`].

mod notifications;
mod orders;
mod payments;
mod reports;
mod restaurant;
mod tracking;

use doorstep_event::{ContractError, Request, RequestContract, RequestKind};

pub use notifications::{AddressStatus, MailKind, MailStatus, MailView, MailsView, ReadMails};
pub use orders::{HistoryEntry, HistoryKind, OrderStatus, OrderView, ReadOrder};
pub use payments::{
    AuthorizePayment, CapturePayment, PaidOrder, PaymentAuthorization, PaymentStatus, PaymentView,
    ReadPayment, RefundPayment, VoidPayment,
};
pub use reports::{
    CancelReport, ListReports, ReadReport, ReportList, ReportStatus, ReportView, RequestReport,
};
pub use restaurant::{
    ConfigureRestaurant, ConfirmOrder, Dish, Menu, OrderConfirmation, OrderQuote, QuoteOrder,
    ReadMenu, RequestedLine, RestaurantConfigured,
};
pub use tracking::{DeliveryStatus, DeliveryView, GpsFix, ReadDelivery};

/// The description of a request type, for listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestSpec {
    pub kind: &'static str,
    pub act: RequestKind,
    /// An example request in JSON.
    pub request: &'static str,
    /// An example reply in JSON.
    pub reply: &'static str,
    pub errors: &'static [ErrorCode],
}

impl RequestSpec {
    /// Returns the role that handles it: the first word of the type.
    #[must_use]
    pub fn role(&self) -> &'static str {
        self.kind
            .split_once('.')
            .map_or(self.kind, |(role, _)| role)
    }
}

/// A code of a rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode {
    pub code: &'static str,
    /// The meaning for people.
    pub means: &'static str,
}

impl ErrorCode {
    const fn new(code: &'static str, means: &'static str) -> Self {
        Self { code, means }
    }
}

macro_rules! requests {
    ($($contract:ty: $kind:literal, $errors:expr);+ $(;)?) => {
        pub const REQUESTS: &[RequestSpec] = &[$(RequestSpec {
            kind: <$contract as RequestContract>::TYPE,
            act: <$contract as RequestContract>::ACT,
            request: include_str!(concat!("../../golden/requests/", $kind, ".request.json")),
            reply: include_str!(concat!("../../golden/requests/", $kind, ".reply.json")),
            errors: $errors,
        }),+];

        /// Checks a request against the contract of its type: format and rules.
        ///
        /// # Errors
        /// Describes the violation; [`ContractError::UnknownType`] if the type or version has no contract.
        pub fn check(request: &Request) -> Result<(), ContractError> {
            match request.kind.as_str() {
                $(<$contract as RequestContract>::TYPE => {
                    <$contract as RequestContract>::read(request).map(drop)
                })+
                unknown => Err(ContractError::UnknownType(unknown.to_owned())),
            }
        }

        /// Parses a request and a reply of that type and serializes them again, one field per line.
        #[cfg(test)]
        fn round_trip(spec: &RequestSpec) -> serde_json::Result<(String, String)> {
            match spec.kind {
                $(<$contract as RequestContract>::TYPE => {
                    let request: $contract = serde_json::from_str(spec.request)?;
                    let reply: <$contract as RequestContract>::Reply = serde_json::from_str(spec.reply)?;
                    Ok((serde_json::to_string_pretty(&request)?, serde_json::to_string_pretty(&reply)?))
                })+
                unknown => panic!("{unknown} has no contract"),
            }
        }
    };
}

requests![
    AuthorizePayment: "payments.authorize.v1", payments::AUTHORIZE;
    CapturePayment: "payments.capture.v1", payments::CAPTURE;
    VoidPayment: "payments.void.v1", payments::VOID;
    RefundPayment: "payments.refund.v1", payments::REFUND;
    ReadPayment: "payments.payment.v1", payments::READ;
    ConfigureRestaurant: "restaurant.configure.v1", &[];
    QuoteOrder: "restaurant.quote.v1", restaurant::QUOTE;
    ConfirmOrder: "restaurant.confirm.v1", restaurant::CONFIRM;
    ReadMenu: "restaurant.menu.v1", restaurant::MENU;
    ReadOrder: "orders.order.v1", orders::READ;
    ReadDelivery: "tracking.delivery.v1", tracking::READ;
    RequestReport: "reports.request.v1", reports::REQUEST;
    CancelReport: "reports.cancel.v1", reports::CANCEL;
    ReadReport: "reports.report.v1", reports::READ;
    ListReports: "reports.list.v1", &[];
    ReadMails: "notifications.mails.v1", &[];
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use doorstep_event::{EventType, Idempotency, RequestId, Source, Timestamp};

    use super::*;

    fn request(kind: &str, act: RequestKind, data: &str) -> Request {
        Request {
            id: RequestId::new("1").unwrap(),
            caller: Source::new("test").unwrap(),
            kind: EventType::new(kind).unwrap(),
            act,
            time: Timestamp::UNIX_EPOCH,
            deadline: Timestamp::UNIX_EPOCH,
            idempotency: Idempotency::Retryable,
            traceparent: None,
            data: data.to_owned().into(),
        }
    }

    #[test]
    fn golden_requests_round_trip_byte_for_byte() {
        for spec in REQUESTS {
            check(&request(spec.kind, spec.act, spec.request)).unwrap();
            let (request, reply) = round_trip(spec).unwrap();
            assert_eq!(request + "\n", spec.request, "{}", spec.kind);
            assert_eq!(reply + "\n", spec.reply, "{}", spec.kind);
        }
    }

    #[test]
    fn golden_files_and_requests_match() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/requests");
        let files: BTreeSet<String> = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        let listed: BTreeSet<String> = REQUESTS
            .iter()
            .flat_map(|spec| ["request", "reply"].map(|part| format!("{}.{part}.json", spec.kind)))
            .collect();
        assert_eq!(files, listed);
        assert_eq!(listed.len(), 2 * REQUESTS.len(), "a type is listed twice");
    }

    #[test]
    fn foreign_data_and_unknown_versions_are_rejected() {
        for spec in REQUESTS {
            for data in ["", "[]", "{}", "{\"color\":\"red\"}"] {
                let error = check(&request(spec.kind, spec.act, data)).unwrap_err();
                assert!(matches!(error, ContractError::Data(_)), "{error}");
            }
            let extended = spec.request.replacen('{', "{\"color\":\"red\",", 1);
            let error = check(&request(spec.kind, spec.act, &extended)).unwrap_err();
            assert!(error.to_string().contains("unknown field `color`"));
            let next = spec.kind.replace(".v1", ".v2");
            assert_eq!(
                check(&request(&next, spec.act, spec.request)),
                Err(ContractError::UnknownType(next))
            );
        }
    }

    #[test]
    fn error_codes_are_words_listed_once() {
        for spec in REQUESTS {
            let codes: BTreeSet<&str> = spec.errors.iter().map(|r| r.code).collect();
            assert_eq!(codes.len(), spec.errors.len(), "{}", spec.kind);
            for code in codes {
                let is_word = |b: u8| b.is_ascii_lowercase() || b == b'_';
                assert!(code.bytes().all(is_word), "{code}");
            }
        }
    }

    #[test]
    fn a_hold_lasts_one_second_to_seven_days() {
        let golden = include_str!("../../golden/requests/payments.authorize.v1.request.json");
        let mut request: AuthorizePayment = serde_json::from_str(golden).unwrap();
        for (seconds, fits) in [(0, false), (1, true), (604_800, true), (604_801, false)] {
            request.hold_seconds = Some(seconds);
            assert_eq!(request.check().is_ok(), fits, "{seconds}");
        }
    }
}
