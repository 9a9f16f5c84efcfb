//! Operations: what the entries of a store carry as payload.

use data_encoding::BASE64;
use serde::Deserialize;

/// The payload that adds `value`.
pub fn encode_add(value: &[u8]) -> String {
    let mut payload = String::from(r#"{"op":"ADD","value":""#);
    BASE64.encode_append(value, &mut payload);
    payload.push_str(r#""}"#);
    payload
}

/// The value of an operation; `None` when the payload is no operation with a value.
///
/// Go looks at neither the name of the operation nor at unknown members, so neither does this.
pub fn decode_value(payload: &str) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Operation<'j> {
        #[serde(borrow)]
        value: std::borrow::Cow<'j, str>,
    }

    let operation: Operation<'_> = serde_json::from_str(payload).ok()?;
    BASE64.decode(operation.value.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back() {
        assert_eq!(encode_add(b"hello"), r#"{"op":"ADD","value":"aGVsbG8="}"#);
        assert_eq!(decode_value(&encode_add(&[0xff; 100])), Some(vec![0xff; 100]));
    }

    #[test]
    fn only_the_value_matters() {
        for payload in [
            r#"{"op":"ADD","value":"dg=="}"#,
            r#"{"op":"PUT","value":"dg=="}"#,
            r#"{"value":"dg=="}"#,
            r#"{ "key" : "k", "docs": [{}], "value" : "\u0064g==", "op": null }"#,
        ] {
            assert_eq!(decode_value(payload), Some(b"v".to_vec()), "{payload}");
        }
        for payload in
            ["", "null", "[]", "{}", "hello", r#"{"op":"ADD"}"#, r#"{"value":null}"#, r#"{"value":"d"}"#]
        {
            assert_eq!(decode_value(payload), None, "{payload}");
        }
    }
}
