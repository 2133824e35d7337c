//! The list of all event contracts. Other types have no contract.

use doorstep_event::{Contract, ContractError, Event};

use crate::{
    AddressConfirmed, AddressRemoved, AddressSet, DeliveryAssigned, DeliveryDelivered,
    DeliveryPickedUp, DeliveryPositionRecorded, NotificationsChosen, OrderAbandoned,
    OrderCancelled, OrderConfirmed, OrderPlaced, OrderRefused, PaymentAuthorized, PaymentCaptured,
    PaymentRefunded, PaymentVoided, ReportFailed, ReportReady, RequestServed, RequestsDropped,
    ReturnRecorded, StockAdjusted, StockReleased, StockReserved,
};

macro_rules! contracts {
    ($($contract:ty),+ $(,)?) => {
        pub const TYPES: &[&str] = &[$(<$contract as Contract>::TYPE),+];

        /// Checks an event against the contract of its type: subject, sequence, format and rules.
        ///
        /// # Errors
        /// Describes the violation; [`ContractError::UnknownType`] if the type or version has no contract.
        pub fn check(event: &Event) -> Result<(), ContractError> {
            match event.event_type.as_str() {
                $(<$contract as Contract>::TYPE => <$contract as Contract>::read(event).map(drop),)+
                unknown => Err(ContractError::UnknownType(unknown.to_owned())),
            }
        }

        /// Parses data by the type's contract and serializes it again, one field per line.
        #[cfg(test)]
        fn round_trip(kind: &str, data: &str) -> Result<String, serde_json::Error> {
            match kind {
                $(<$contract as Contract>::TYPE => {
                    serde_json::to_string_pretty(&serde_json::from_str::<$contract>(data)?)
                })+
                unknown => panic!("{unknown} has no contract"),
            }
        }
    };
}

contracts![
    OrderPlaced,
    OrderConfirmed,
    OrderRefused,
    OrderAbandoned,
    OrderCancelled,
    ReturnRecorded,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentVoided,
    PaymentRefunded,
    StockAdjusted,
    StockReserved,
    StockReleased,
    DeliveryAssigned,
    DeliveryPositionRecorded,
    DeliveryPickedUp,
    DeliveryDelivered,
    ReportReady,
    ReportFailed,
    RequestServed,
    RequestsDropped,
    AddressSet,
    AddressConfirmed,
    AddressRemoved,
    NotificationsChosen,
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use doorstep_event::{EventId, EventType, Sequence, Source, Subject};

    use super::*;

    fn golden(kind: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{kind}.json"));
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn event(kind: &str, data: &str) -> Event {
        let kind = EventType::new(kind).unwrap();
        let subject = Subject::new(format!("{}/1", kind.subject_kind())).unwrap();
        Event {
            id: EventId::new("1").unwrap(),
            source: Source::new("test").unwrap(),
            event_type: kind,
            subject,
            time: None,
            sequence: Some(Sequence::FIRST),
            epoch: None,
            traceparent: None,
            data: data.to_owned().into(),
        }
    }

    #[test]
    fn golden_events_round_trip_byte_for_byte() {
        for kind in TYPES {
            let golden = golden(kind);
            check(&event(kind, &golden)).unwrap();
            assert_eq!(round_trip(kind, &golden).unwrap() + "\n", golden, "{kind}");
        }
    }

    #[test]
    fn golden_events_and_contracts_match_one_to_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
        let files: BTreeSet<String> = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            // The tests of `requests` cover those of requests.
            .filter(|name| name != "requests")
            .collect();
        let contracts: BTreeSet<String> = TYPES.iter().map(|kind| format!("{kind}.json")).collect();
        assert_eq!(files, contracts);
        assert_eq!(contracts.len(), TYPES.len(), "a type is listed twice");
    }

    #[test]
    fn unknown_types_and_versions_are_rejected() {
        for kind in ["order.placed.v2", "order.eaten.v1", "parcel.lost.v1"] {
            assert_eq!(
                check(&event(kind, "{}")),
                Err(ContractError::UnknownType(kind.to_owned()))
            );
        }
    }

    #[test]
    fn missing_sequences_and_foreign_data_are_rejected() {
        for kind in TYPES {
            let mut unnumbered = event(kind, &golden(kind));
            unnumbered.sequence = None;
            assert_eq!(check(&unnumbered), Err(ContractError::NoSequence(kind)));
            for data in ["", "[]", "{}", "{\"color\":\"red\"}"] {
                let error = check(&event(kind, data)).unwrap_err();
                assert!(matches!(error, ContractError::Data(_)), "{error}");
            }
            // An unknown field is rejected, since it would be lost silently.
            let extended = golden(kind).replacen('{', "{\"color\":\"red\",", 1);
            let error = check(&event(kind, &extended)).unwrap_err().to_string();
            assert!(error.contains("unknown field `color`"), "{error}");
        }
    }
}
