//! The gateway's address for its users.

use std::{str::FromStr, sync::Arc};

use url::Url;

/// The URL of the gateway for its users, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicUrl(Arc<str>);

impl PublicUrl {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write it as https://shop.example.com";
        let url = Url::parse(text).map_err(|e| format!("it is not a URL ({e}): {form}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(format!("it is not the URL of a web server: {form}"));
        }
        let has_login = !url.username().is_empty() || url.password().is_some();
        if has_login || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("it has a user, query or fragment: {form}"));
        }
        Ok(Self(url.as_str().trim_end_matches('/').into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_url_is_that_of_a_web_server() {
        for (text, expected) in [
            ("https://shop.example.com", "https://shop.example.com"),
            (
                "https://shop.example.com/api/",
                "https://shop.example.com/api",
            ),
            ("http://localhost:8080/", "http://localhost:8080"),
        ] {
            assert_eq!(text.parse::<PublicUrl>().unwrap().as_str(), expected);
        }
        for bad in [
            "",
            "shop.example.com",
            "ftp://example.com",
            "mailto:a@example.com",
            "https://u:p@example.com",
            "https://example.com?a=b",
            "https://example.com#a",
        ] {
            assert!(bad.parse::<PublicUrl>().is_err(), "{bad}");
        }
    }
}
