//! Positions on the earth.

use serde::{Deserialize, Serialize};

/// A position in WGS84, the datum of GPS; always within range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Degrees", into = "Degrees")]
pub struct Position {
    longitude: f64,
    latitude: f64,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PositionError {
    #[error("longitude {0} is not within -180 to 180 degrees")]
    Longitude(f64),
    #[error("latitude {0} is not within -90 to 90 degrees")]
    Latitude(f64),
}

impl Position {
    /// Creates a position from degrees; east and north are positive.
    ///
    /// # Errors
    /// Fails if a number is out of range or NaN.
    pub fn new(longitude: f64, latitude: f64) -> Result<Self, PositionError> {
        if !(-180.0..=180.0).contains(&longitude) {
            return Err(PositionError::Longitude(longitude));
        }
        if !(-90.0..=90.0).contains(&latitude) {
            return Err(PositionError::Latitude(latitude));
        }
        Ok(Self {
            longitude,
            latitude,
        })
    }

    /// Degrees east, -180 to 180.
    #[must_use]
    pub fn longitude(self) -> f64 {
        self.longitude
    }

    /// Degrees north, -90 to 90.
    #[must_use]
    pub fn latitude(self) -> f64 {
        self.latitude
    }
}

// Equality is reflexive, since `new` rejects NaN.
impl Eq for Position {}

/// The wire format before validation.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Degrees {
    longitude: f64,
    latitude: f64,
}

impl TryFrom<Degrees> for Position {
    type Error = PositionError;
    fn try_from(degrees: Degrees) -> Result<Self, Self::Error> {
        Self::new(degrees.longitude, degrees.latitude)
    }
}

impl From<Position> for Degrees {
    fn from(position: Position) -> Self {
        Self {
            longitude: position.longitude,
            latitude: position.latitude,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_outside_the_range_are_rejected() {
        assert!(Position::new(180.0, -90.0).is_ok());
        assert_eq!(
            Position::new(180.1, 0.0),
            Err(PositionError::Longitude(180.1))
        );
        assert_eq!(Position::new(0.0, 90.1), Err(PositionError::Latitude(90.1)));
        assert!(Position::new(f64::NAN, 0.0).is_err());
        assert!(Position::new(0.0, f64::INFINITY).is_err());
        let beyond = serde_json::from_str::<Position>(r#"{"longitude":0,"latitude":91}"#);
        assert!(beyond.unwrap_err().to_string().contains("latitude 91"));
    }
}
