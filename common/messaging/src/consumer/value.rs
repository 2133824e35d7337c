//! Converts AMQP header values to attributes.

use std::borrow::Cow;

use doorstep_event::{
    Timestamp,
    headers::{Value, form},
};
use lapin::types::AMQPValue;

/// Returns an attribute's value. Integers and timestamps, which some libraries use, are converted to text. Any other type is
/// [`Value::Invalid`], with the type named.
pub(super) fn attribute_value<'a>(attribute: &str, value: &'a AMQPValue) -> Value<'a> {
    let found = match value {
        AMQPValue::LongString(bytes) => match std::str::from_utf8(bytes.as_bytes()) {
            Ok(text) => return Value::Text(Cow::Borrowed(text)),
            Err(_) => "text that is not UTF-8".to_owned(),
        },
        AMQPValue::ShortString(text) => return Value::Text(Cow::Borrowed(text.as_str())),
        AMQPValue::Void => return Value::Absent,
        AMQPValue::Timestamp(count) if attribute == "time" => match timestamp(*count) {
            Ok(time) => return Value::Text(time.to_string().into()),
            Err(defect) => return Value::Invalid(defect),
        },
        AMQPValue::Timestamp(count) => format!("a timestamp ({count})"),
        AMQPValue::Boolean(flag) => format!("a boolean ({flag})"),
        AMQPValue::Float(n) => format!("a float ({n:?})"),
        AMQPValue::Double(n) => format!("a double ({n:?})"),
        AMQPValue::DecimalValue(n) => format!("a decimal ({} at scale {})", n.value, n.scale),
        AMQPValue::ByteArray(bytes) => format!("{} raw bytes", bytes.as_slice().len()),
        AMQPValue::FieldArray(_) => "an array".to_owned(),
        AMQPValue::FieldTable(_) => "a table".to_owned(),
        AMQPValue::ShortShortInt(_)
        | AMQPValue::ShortShortUInt(_)
        | AMQPValue::ShortInt(_)
        | AMQPValue::ShortUInt(_)
        | AMQPValue::LongInt(_)
        | AMQPValue::LongUInt(_)
        | AMQPValue::LongLongInt(_) => match number(value) {
            Some(number) => return Value::Text(number.to_string().into()),
            None => return Value::Absent,
        },
    };
    Value::Invalid(format!("{attribute} is {found}, not {}", form(attribute)))
}

/// Returns a header's value if it is text.
pub(super) fn text(value: &AMQPValue) -> Option<Cow<'_, str>> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(Cow::Borrowed),
        AMQPValue::ShortString(text) => Some(Cow::Borrowed(text.as_str())),
        _ => None,
    }
}

/// Returns a header's value if it is an integer.
pub(super) fn number(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongInt(n) => Some(i64::from(*n)),
        AMQPValue::LongUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongLongInt(n) => Some(*n),
        _ => None,
    }
}

/// Converts a timestamp.
///
/// AMQP specifies Unix time in seconds, but many libraries write milliseconds, microseconds or nanoseconds. From 1973-03-03 until the year
/// 5138 the ranges of these units do not overlap, so the number determines its unit. AMQP has no times before 1970.
fn timestamp(count: u64) -> Result<Timestamp, String> {
    const SECONDS: i64 = 100_000_000_000;
    let Ok(signed) = i64::try_from(count) else {
        return Err(format!(
            "time is a timestamp before 1970 ({}), which AMQP does not have; send an RFC 3339 text",
            count.cast_signed()
        ));
    };
    let time = if signed < SECONDS {
        Timestamp::from_second(signed)
    } else if signed < SECONDS * 1_000 {
        Timestamp::from_millisecond(signed)
    } else if signed < SECONDS * 1_000_000 {
        Timestamp::from_microsecond(signed)
    } else {
        return Ok(Timestamp::from_nanosecond(i128::from(signed)).unwrap_or(Timestamp::MAX));
    };
    time.map_err(|e| format!("time is an invalid timestamp ({count}): {e}"))
}

#[cfg(test)]
mod tests {
    use lapin::types::{ByteArray, DecimalValue, FieldArray, FieldTable, LongString};

    use super::*;

    #[test]
    fn a_timestamp_is_recognized_in_every_unit() {
        for seconds in [
            100_000_000,
            1_700_000_000,
            1_795_000_000,
            99_999_999_999_u64,
        ] {
            let time = Timestamp::from_second(seconds.cast_signed()).unwrap();
            for unit in [1, 1_000, 1_000_000] {
                assert_eq!(
                    timestamp(seconds * unit),
                    Ok(time),
                    "{seconds} times {unit}"
                );
            }
        }
        let nanoseconds = 1_700_000_000_123_456_789;
        let time = timestamp(nanoseconds).unwrap();
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(timestamp(0).unwrap(), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn a_timestamp_before_1970_is_rejected() {
        let before = AMQPValue::Timestamp((-86_400_i64).cast_unsigned());
        let Value::Invalid(defect) = attribute_value("time", &before) else {
            panic!("the timestamp was accepted")
        };
        assert!(defect.contains("before 1970 (-86400)"), "{defect}");
    }

    #[test]
    fn a_value_of_another_type_is_rejected() {
        let values = [
            (AMQPValue::Double(1.0), "a double (1.0)"),
            (AMQPValue::Float(2.5), "a float (2.5)"),
            (AMQPValue::Boolean(true), "a boolean (true)"),
            (
                AMQPValue::DecimalValue(DecimalValue { scale: 0, value: 7 }),
                "a decimal (7 at scale 0)",
            ),
            (
                AMQPValue::ByteArray(ByteArray::from(b"1".to_vec())),
                "1 raw bytes",
            ),
            (AMQPValue::FieldTable(FieldTable::default()), "a table"),
            (AMQPValue::FieldArray(FieldArray::default()), "an array"),
            (AMQPValue::Timestamp(1), "a timestamp (1)"),
            (
                AMQPValue::LongString(LongString::from(vec![0xff])),
                "text that is not UTF-8",
            ),
        ];
        for attribute in ["id", "source", "type", "subject", "sequence", "specversion"] {
            for (value, says) in &values {
                let Value::Invalid(defect) = attribute_value(attribute, value) else {
                    panic!("{attribute} accepted {says}")
                };
                let says = format!("{attribute} is {says}, not ");
                assert!(defect.starts_with(&says), "{defect}");
            }
        }
    }

    #[test]
    fn integers_of_every_width_become_digits() {
        for value in [
            AMQPValue::ShortShortInt(7),
            AMQPValue::ShortShortUInt(7),
            AMQPValue::ShortInt(7),
            AMQPValue::ShortUInt(7),
            AMQPValue::LongInt(7),
            AMQPValue::LongUInt(7),
            AMQPValue::LongLongInt(7),
        ] {
            assert_eq!(attribute_value("sequence", &value), Value::Text("7".into()));
        }
        assert_eq!(
            attribute_value("sequence", &AMQPValue::LongLongInt(-7)),
            Value::Text("-7".into())
        );
    }
}
