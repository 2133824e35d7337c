//! Every request, listed once: what may be asked of which role at once, over RPC, what is replied, and why it may be refused.
//!
//! | type | act | asks |
//! | --- | --- | --- |
//! | [`AuthorizePayment`] `payments.authorize.v1` | command | hold money for an order |
//! | [`CapturePayment`] `payments.capture.v1` | command | take what is held |
//! | [`VoidPayment`] `payments.void.v1` | command | let go of what is held |
//! | [`RefundPayment`] `payments.refund.v1` | command | give back what was captured |
//! | [`ReadPayment`] `payments.payment.v1` | query | how far a payment has come |
//! | [`ConfigureRestaurant`] `restaurant.configure.v1` | command | open a restaurant, or change it |
//! | [`QuoteOrder`] `restaurant.quote.v1` | query | what an order would cost |
//! | [`ConfirmOrder`] `restaurant.confirm.v1` | command | whether it is made, and by when |
//! | [`ReadMenu`] `restaurant.menu.v1` | query | what a restaurant sells, and when |
//! | [`ReadOrder`] `orders.order.v1` | query | how far an order has come |
//! | [`ReadDelivery`] `tracking.delivery.v1` | query | where a delivery is |
//!
//! `golden/requests/` holds a request and a reply for each version; they are also the examples in [`REQUESTS`], from which other forms
//! (an OpenAPI document, a help text) can be made. Codes of refusals are part of the contract; those that any request may meet, such as
//! `bad_request`, are in [`doorstep_event::Refused`].

mod orders;
mod payments;
mod restaurant;
mod tracking;

use doorstep_event::{ContractError, Request, RequestContract, RequestKind};

pub use orders::{HistoryEntry, HistoryKind, OrderStatus, OrderView, ReadOrder};
pub use payments::{
    AuthorizePayment, CapturePayment, PaidOrder, PaymentAuthorization, PaymentStatus, PaymentView,
    ReadPayment, RefundPayment, VoidPayment,
};
pub use restaurant::{
    ConfigureRestaurant, ConfirmOrder, Dish, Menu, OrderConfirmation, OrderQuote, QuoteOrder,
    ReadMenu, RequestedLine, RestaurantConfigured,
};
pub use tracking::{DeliveryStatus, DeliveryView, GpsFix, ReadDelivery};

/// A kind of request, for whoever lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestSpec {
    /// Its versioned type.
    pub kind: &'static str,
    /// Whether it changes anything.
    pub act: RequestKind,
    /// An example of what is asked, in JSON.
    pub request: &'static str,
    /// An example of what is replied, in JSON.
    pub reply: &'static str,
    /// Why it may be refused.
    pub refusals: &'static [ErrorCode],
}

impl RequestSpec {
    /// The role that answers: the first word of the type.
    #[must_use]
    pub fn role(&self) -> &'static str {
        self.kind
            .split_once('.')
            .map_or(self.kind, |(role, _)| role)
    }
}

/// Why a request may be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode {
    /// The word for programs.
    pub code: &'static str,
    /// What it means.
    pub means: &'static str,
}

impl ErrorCode {
    const fn new(code: &'static str, means: &'static str) -> Self {
        Self { code, means }
    }
}

macro_rules! requests {
    ($($contract:ty: $kind:literal, $refusals:expr);+ $(;)?) => {
        /// All requests.
        pub const REQUESTS: &[RequestSpec] = &[$(RequestSpec {
            kind: <$contract as RequestContract>::TYPE,
            act: <$contract as RequestContract>::ACT,
            request: include_str!(concat!("../../golden/requests/", $kind, ".request.json")),
            reply: include_str!(concat!("../../golden/requests/", $kind, ".reply.json")),
            refusals: $refusals,
        }),+];

        /// Checks a request against the contract of its type: form and rules.
        ///
        /// # Errors
        /// Says how the request breaks its contract; [`ContractError::UnknownType`] where there is none of that type and version.
        pub fn check(request: &Request) -> Result<(), ContractError> {
            match request.kind.as_str() {
                $(<$contract as RequestContract>::TYPE => {
                    <$contract as RequestContract>::read(request).map(drop)
                })+
                unknown => Err(ContractError::UnknownType(unknown.to_owned())),
            }
        }

        /// Reads a request and a reply of that type and writes them again, one member a line.
        #[cfg(test)]
        fn written_again(spec: &RequestSpec) -> serde_json::Result<(String, String)> {
            match spec.kind {
                $(<$contract as RequestContract>::TYPE => {
                    let request: $contract = serde_json::from_str(spec.request)?;
                    let reply: <$contract as RequestContract>::Reply = serde_json::from_str(spec.reply)?;
                    Ok((serde_json::to_string_pretty(&request)?, serde_json::to_string_pretty(&reply)?))
                })+
                unknown => panic!("{unknown} is in no contract"),
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
    fn every_golden_request_and_reply_is_written_back_byte_for_byte() {
        for spec in REQUESTS {
            check(&request(spec.kind, spec.act, spec.request)).unwrap();
            let (request, reply) = written_again(spec).unwrap();
            assert_eq!(request + "\n", spec.request, "{}", spec.kind);
            assert_eq!(reply + "\n", spec.reply, "{}", spec.kind);
        }
    }

    #[test]
    fn there_are_two_golden_jsons_for_every_request_and_no_others() {
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
    fn no_request_is_taken_with_data_of_another_form_or_in_an_unknown_version() {
        for spec in REQUESTS {
            for data in ["", "[]", "{}", "{\"color\":\"red\"}"] {
                let error = check(&request(spec.kind, spec.act, data)).unwrap_err();
                assert!(matches!(error, ContractError::Data(_)), "{error}");
            }
            let more = spec.request.replacen('{', "{\"color\":\"red\",", 1);
            let error = check(&request(spec.kind, spec.act, &more)).unwrap_err();
            assert!(error.to_string().contains("unknown field `color`"));
            let next = spec.kind.replace(".v1", ".v2");
            assert_eq!(
                check(&request(&next, spec.act, spec.request)),
                Err(ContractError::UnknownType(next))
            );
        }
    }

    #[test]
    fn codes_of_refusals_are_words_and_each_is_listed_once_for_a_request() {
        for spec in REQUESTS {
            let codes: BTreeSet<&str> = spec.refusals.iter().map(|r| r.code).collect();
            assert_eq!(codes.len(), spec.refusals.len(), "{}", spec.kind);
            for code in codes {
                let is_word = |b: u8| b.is_ascii_lowercase() || b == b'_';
                assert!(code.bytes().all(is_word), "{code}");
            }
        }
    }

    #[test]
    fn money_is_held_for_a_second_at_least_and_seven_days_at_most() {
        let golden = include_str!("../../golden/requests/payments.authorize.v1.request.json");
        let mut asked: AuthorizePayment = serde_json::from_str(golden).unwrap();
        for (seconds, fits) in [(0, false), (1, true), (604_800, true), (604_801, false)] {
            asked.hold_seconds = Some(seconds);
            assert_eq!(asked.check().is_ok(), fits, "{seconds}");
        }
    }
}
