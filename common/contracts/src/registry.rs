//! Every contract, listed once. What is not in this list is in no contract.

use doorstep_event::{Contract, ContractError, Event};

use crate::{
    DeliveryAssigned, DeliveryDelivered, DeliveryPickedUp, DeliveryPositionRecorded,
    OrderAbandoned, OrderCancelled, OrderConfirmed, OrderPlaced, OrderRefused, PaymentAuthorized,
    PaymentCaptured, PaymentRefunded, PaymentVoided, ReturnRecorded, StockAdjusted, StockReleased,
    StockReserved,
};

macro_rules! contracts {
    ($($contract:ty),+ $(,)?) => {
        /// The types of all contracts.
        pub const TYPES: &[&str] = &[$(<$contract as Contract>::TYPE),+];

        /// Checks an event against the contract of its type: subject, sequence, form and rules.
        ///
        /// # Errors
        /// Says how the event breaks its contract; [`ContractError::UnknownType`] where there is none of that type and version.
        pub fn check(event: &Event) -> Result<(), ContractError> {
            match event.event_type.as_str() {
                $(<$contract as Contract>::TYPE => <$contract as Contract>::read(event).map(drop),)+
                unknown => Err(ContractError::UnknownType(unknown.to_owned())),
            }
        }

        /// Reads data as the contract of that type and writes it again, one member a line.
        #[cfg(test)]
        fn written_again(kind: &str, data: &str) -> Result<String, serde_json::Error> {
            match kind {
                $(<$contract as Contract>::TYPE => {
                    serde_json::to_string_pretty(&serde_json::from_str::<$contract>(data)?)
                })+
                unknown => panic!("{unknown} is in no contract"),
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
    fn every_golden_json_keeps_its_contract_and_is_written_back_byte_for_byte() {
        for kind in TYPES {
            let golden = golden(kind);
            check(&event(kind, &golden)).unwrap();
            assert_eq!(
                written_again(kind, &golden).unwrap() + "\n",
                golden,
                "{kind}"
            );
        }
    }

    #[test]
    fn there_is_a_golden_json_for_every_contract_and_a_contract_for_every_golden_json() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
        let files: BTreeSet<String> = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            // Those of requests are the business of `requests`.
            .filter(|name| name != "requests")
            .collect();
        let contracts: BTreeSet<String> = TYPES.iter().map(|kind| format!("{kind}.json")).collect();
        assert_eq!(files, contracts);
        assert_eq!(contracts.len(), TYPES.len(), "a type is listed twice");
    }

    #[test]
    fn an_unknown_type_or_version_is_in_no_contract() {
        for kind in ["order.placed.v2", "order.eaten.v1", "parcel.lost.v1"] {
            assert_eq!(
                check(&event(kind, "{}")),
                Err(ContractError::UnknownType(kind.to_owned()))
            );
        }
    }

    #[test]
    fn no_contract_takes_an_event_without_a_sequence_or_with_data_of_another_form() {
        for kind in TYPES {
            let mut unnumbered = event(kind, &golden(kind));
            unnumbered.sequence = None;
            assert_eq!(check(&unnumbered), Err(ContractError::NoSequence(kind)));
            for data in ["", "[]", "{}", "{\"color\":\"red\"}"] {
                let error = check(&event(kind, data)).unwrap_err();
                assert!(matches!(error, ContractError::Data(_)), "{error}");
            }
            // A member that no contract knows would be lost in silence, so it is refused.
            let more = golden(kind).replacen('{', "{\"color\":\"red\",", 1);
            let error = check(&event(kind, &more)).unwrap_err().to_string();
            assert!(error.contains("unknown field `color`"), "{error}");
        }
    }
}
