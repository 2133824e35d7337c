//! The broker's management HTTP API: the operations of tests and commands, and access to any other path.

use std::fmt;

use anyhow::{Context, Result, bail};

use crate::address::{host_and_port, login_and_place, percent_encoded};
use crate::http::{self, ApiResponse, Request};

/// A login to the management API of one broker. Every request has a connection of its own and a timeout.
#[derive(Clone, PartialEq, Eq)]
pub struct Management {
    host: String,
    port: u16,
    user: String,
    password: String,
}

impl Management {
    /// The management API at `host:port`, used as `user`. Sends nothing yet.
    #[must_use]
    pub fn new(host: &str, port: u16, user: &str, password: &str) -> Self {
        Self {
            host: host.to_owned(),
            port,
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    /// Parses `http://user:password@host:port`, the form that [`Management::url_with_login`] writes.
    ///
    /// # Errors
    /// If it is no such address. `https` is not supported.
    pub fn from_url(url: &str) -> Result<Self> {
        let place = url
            .strip_prefix("http://")
            .context("a management address looks like http://user:password@host:15672")?;
        let (user, password, place) = login_and_place(place.trim_end_matches('/'))?;
        let (host, port) = host_and_port(place, 15672)?;
        Ok(Self {
            host,
            port,
            user: user.unwrap_or_else(|| "guest".to_owned()),
            password: password.unwrap_or_else(|| "guest".to_owned()),
        })
    }

    /// Returns the address for a browser, without the login.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    /// Returns the address with user and password, to pass to another program.
    #[must_use]
    pub fn url_with_login(&self) -> String {
        let (user, password) = (percent_encoded(&self.user), percent_encoded(&self.password));
        format!("http://{user}:{password}@{}:{}", self.host, self.port)
    }

    /// Returns the user of the requests.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns that user's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Returns true if the API answers and accepts the login.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.send("GET", "/api/whoami", "")
            .is_ok_and(|answer| answer.status == 200)
    }

    /// Returns the JSON at `path`, for example `/api/queues/my-vhost`.
    ///
    /// # Errors
    /// If the API cannot be reached or answers without success; status and reason are in the text.
    pub fn get(&self, path: &str) -> Result<String> {
        self.succeed("GET", path, "")
    }

    /// Puts `json` at `path` and returns the answer's body, which is mostly empty.
    ///
    /// # Errors
    /// As [`Management::get`].
    pub fn put(&self, path: &str, json: &str) -> Result<String> {
        self.succeed("PUT", path, json)
    }

    /// Posts `json` to `path` and returns the answer's body.
    ///
    /// # Errors
    /// As [`Management::get`].
    pub fn post(&self, path: &str, json: &str) -> Result<String> {
        self.succeed("POST", path, json)
    }

    /// Deletes the resource at `path`, for example `/api/connections/NAME` to close a connection. A missing resource is
    /// no error.
    ///
    /// # Errors
    /// As [`Management::get`].
    pub fn delete(&self, path: &str) -> Result<()> {
        let answer = self.send("DELETE", path, "")?;
        if answer.status == 404 {
            return Ok(());
        }
        self.checked("DELETE", path, answer).map(drop)
    }

    /// Creates a virtual host and gives this login's user all permissions in it. An existing one stays.
    ///
    /// # Errors
    /// As [`Management::get`]; only an administrator can create virtual hosts.
    pub fn create_vhost(&self, vhost: &str) -> Result<()> {
        self.put(&format!("/api/vhosts/{}", percent_encoded(vhost)), "{}")?;
        self.grant(&self.user, vhost)
    }

    /// Deletes a virtual host with its contents and closes its connections. A missing one is no error.
    ///
    /// # Errors
    /// As [`Management::get`].
    pub fn delete_vhost(&self, vhost: &str) -> Result<()> {
        self.delete(&format!("/api/vhosts/{}", percent_encoded(vhost)))
    }

    /// Creates a user without permissions. `tags` are the broker's names of the user's roles, separated by commas:
    /// empty for an application, `administrator` for everything.
    ///
    /// # Errors
    /// As [`Management::get`].
    pub fn create_user(&self, user: &str, password: &str, tags: &str) -> Result<()> {
        let path = format!("/api/users/{}", percent_encoded(user));
        let (password, tags) = (quoted(password), quoted(tags));
        self.put(
            &path,
            &format!(r#"{{"password":{password},"tags":{tags}}}"#),
        )
        .map(drop)
    }

    /// Deletes a user. A missing one is no error.
    ///
    /// # Errors
    /// As [`Management::get`].
    pub fn delete_user(&self, user: &str) -> Result<()> {
        self.delete(&format!("/api/users/{}", percent_encoded(user)))
    }

    /// Lets `user` configure, write and read everything in `vhost`.
    ///
    /// # Errors
    /// As [`Management::get`].
    pub fn grant(&self, user: &str, vhost: &str) -> Result<()> {
        let (vhost, user) = (percent_encoded(vhost), percent_encoded(user));
        self.put(
            &format!("/api/permissions/{vhost}/{user}"),
            r#"{"configure":".*","write":".*","read":".*"}"#,
        )
        .map(drop)
    }

    fn succeed(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let answer = self.send(method, path, body)?;
        self.checked(method, path, answer)
    }

    fn checked(&self, method: &str, path: &str, answer: ApiResponse) -> Result<String> {
        match answer.status {
            200..=299 => Ok(answer.body),
            401 => bail!(
                "the management API at {} does not take the login of user {}",
                self.url(),
                self.user
            ),
            status => bail!(
                "{method} {path} at {}: status {status}: {}",
                self.url(),
                answer.body.trim()
            ),
        }
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Result<ApiResponse> {
        let request = Request {
            method,
            host: &self.host,
            port: self.port,
            path,
            user: &self.user,
            password: &self.password,
            body,
        };
        http::send(&request).with_context(|| format!("{method} {path} at {}", self.url()))
    }
}

impl fmt::Debug for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password stays out of panics and test output.
        write!(f, "{} as {}", self.url(), self.user)
    }
}

/// Returns `text` as a JSON string.
fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                json.push('\\');
                json.push(letter);
            }
            letter if letter < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => json.push(letter),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_management_address_reads_as_it_was_written() {
        let url = "http://a%40b:p%3Aw@127.0.0.1:21001";
        let management = Management::from_url(url).unwrap();
        assert_eq!(management.user(), "a@b");
        assert_eq!(management.password(), "p:w");
        assert_eq!(management.url_with_login(), url);
        assert_eq!(management.url(), "http://127.0.0.1:21001");
        assert_eq!(format!("{management:?}"), "http://127.0.0.1:21001 as a@b");
    }

    #[test]
    fn text_becomes_a_json_string() {
        assert_eq!(quoted("a\"b\\c\n"), r#""a\"b\\c\u000a""#);
    }
}
