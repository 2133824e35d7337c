//! The customers of the demo who get mails: their addresses, and the number of mails that they are owed.

use doorstep_contracts::{
    AddressConfirmed, AddressSet, CustomerId, EmailAddress, IdError, Label, LinkPath, SignedLink,
};
use doorstep_event::Timestamp;
use jiff::SignedDuration;
use rand::{RngExt, rngs::StdRng};
use serde::Serialize;

/// The error of an event that breaks its contract: a bug in the scenario.
pub(super) type Mistake = String;

pub(super) fn text<E: std::fmt::Display>(error: E) -> Mistake {
    error.to_string()
}

/// A customer with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Customer {
    pub(super) name: &'static str,
    /// Set if the customer has confirmed the address by the link in a mail.
    pub(super) is_confirmed: bool,
}

/// All customers with an address, one of whom has not confirmed it.
pub(super) const CUSTOMERS: [Customer; 4] = [
    Customer::confirmed("ada"),
    Customer::confirmed("grace"),
    Customer::confirmed("linus"),
    Customer {
        name: "ken",
        is_confirmed: false,
    },
];

/// The divisor of orders by a customer with an address; the others name no customer.
const CUSTOMER_ONE_IN: u32 = 3;

/// The number of facts that may cause a mail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct MailCauses {
    /// All of them: for each there is a mail, or a reason why not.
    all: u64,
    /// Those about orders of customers who get mails.
    to_send: u64,
}

impl MailCauses {
    /// Counts a fact about an order.
    pub(super) fn add(&mut self, customer: Option<Customer>) {
        self.all += 1;
        self.to_send += u64::from(customer.is_some_and(|customer| customer.is_confirmed));
    }

    /// Counts an address that was set.
    pub(super) fn add_address(&mut self) {
        self.all += 1;
    }
}

impl Customer {
    const fn confirmed(name: &'static str) -> Self {
        Self {
            name,
            is_confirmed: true,
        }
    }

    /// Returns the customer of an order, if it names one.
    pub(super) fn draw(rng: &mut StdRng) -> Option<Self> {
        let names_one = rng.random_ratio(1, CUSTOMER_ONE_IN);
        let which = rng.random_range(0..CUSTOMERS.len());
        names_one.then(|| CUSTOMERS[which])
    }

    pub(super) fn id(self) -> Result<CustomerId, IdError> {
        CustomerId::new(self.name)
    }

    /// Returns the setting of the address, with its confirmation if there is one.
    pub(super) fn address(
        self,
        now: Timestamp,
    ) -> Result<(AddressSet, Option<AddressConfirmed>), Mistake> {
        let address: EmailAddress = format!("{}@example.com", self.name).parse().map_err(text)?;
        let nonce: Label = format!("demo{}", self.name).parse().map_err(text)?;
        let expires_at = now.checked_add(SignedDuration::from_hours(24));
        let set = AddressSet {
            address: address.clone(),
            link: SignedLink {
                path: LinkPath::new(&format!("/confirm-email/{}", self.name)).map_err(text)?,
                expires_at: expires_at.map_err(text)?,
            },
            nonce: nonce.clone(),
        };
        let confirmed = self
            .is_confirmed
            .then_some(AddressConfirmed { address, nonce });
        Ok((set, confirmed))
    }
}
