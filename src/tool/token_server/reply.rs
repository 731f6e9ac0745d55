//! Replies: XHTML pages with the message where clients of the original look for it, and bare text for programs.

use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::pools::StoreError;
use super::request::Format;

pub(super) const XHTML: &str = "application/xhtml+xml; charset=UTF-8";
pub(super) const PLAIN: &str = "text/plain; charset=UTF-8";

/// A request that is not carried out: the status and the reason in words.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let status = if error.may_pass() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        message(self.0, &self.1)
    }
}

/// For the many that only have a reason.
pub(super) fn refuse<T>(status: StatusCode, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(status, why.into()))
}

/// A reply with a body of this type.
pub(super) fn reply(status: StatusCode, kind: &str, body: impl Into<Body>) -> Response {
    let mut response = (status, body.into()).into_response();
    set(&mut response, CONTENT_TYPE, kind);
    response
}

/// Sets a header; a value that no header can carry (a control character in a token's name) is left out.
pub(super) fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        response.headers_mut().insert(name, value);
    }
}

/// What happened, in words.
pub(super) fn message(status: StatusCode, text: &str) -> Response {
    page(status, status.canonical_reason().unwrap_or("?"), &format!("<pre id=\"message\">{}</pre>", escape(text)))
}

/// A page with this XHTML inside.
pub(super) fn page(status: StatusCode, title: &str, inside: &str) -> Response {
    reply(status, XHTML, document(title, inside))
}

pub(super) fn document(title: &str, inside: &str) -> String {
    let title = escape(title);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <html xmlns=\"http://www.w3.org/1999/xhtml\"><head><title>{title}</title></head>\n\
         <body><h1>{title}</h1>\n{inside}\n</body></html>\n"
    )
}

/// The way to another resource: `Location`, and the same in the body.
pub(super) fn pointer(status: StatusCode, format: Format, title: &str, url: &str) -> Response {
    let mut response = match format {
        Format::Plain => reply(status, PLAIN, url.to_owned()),
        _ => page(status, title, &format!("<p><a href=\"{0}\">{0}</a></p>", escape(url))),
    };
    set(&mut response, LOCATION, url);
    response
}

/// Text for XML, also inside attributes. Control characters and two others cannot be in XML at all (1.0, 2.2).
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(char),
            '\u{fffe}' | '\u{ffff}' => escaped.push(char::REPLACEMENT_CHARACTER),
            _ if char.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            _ => escaped.push(char),
        }
    }
    escaped
}

/// `2026-01-31T12:00:00Z`.
pub(super) fn iso_date(unix: i64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + seconds(unix)).to_string()
}

/// RFC 9110 5.6.7: `Sat, 31 Jan 2026 12:00:00 GMT`.
pub(super) fn http_date(unix: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]; // day 0 of Unix was a Thursday
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let iso = iso_date(unix);
    let weekday = DAYS[(seconds(unix).as_secs() / 86400 % 7) as usize];
    let month = MONTHS[iso[5..7].parse::<usize>().unwrap_or(1) - 1];
    format!("{weekday}, {} {month} {} {} GMT", &iso[8..10], &iso[..4], &iso[11..19])
}

/// Until the year 9999, the last that these formats can say.
fn seconds(unix: i64) -> Duration {
    Duration::from_secs(u64::try_from(unix).unwrap_or(0).min(253_402_300_799))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_both_ways() {
        let cases = [
            (0, "1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_709_210_096, "2024-02-29T12:34:56Z", "Thu, 29 Feb 2024 12:34:56 GMT"),
            (i64::MAX, "9999-12-31T23:59:59Z", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (unix, iso, http) in cases {
            assert_eq!((iso_date(unix).as_str(), http_date(unix).as_str()), (iso, http));
        }
    }

    #[test]
    fn text_stays_text_in_xml() {
        assert_eq!(escape("<a href=\"&\">\u{1b}\n"), "&lt;a href=&quot;&amp;&quot;&gt;\u{fffd}\n");
        assert_eq!(escape("\u{fffe}\u{ffff}"), "\u{fffd}\u{fffd}", "XML 1.0, 2.2");
    }
}
