//! The console: a browser without a script, and what it gets.

use std::net::SocketAddr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::net::TcpStream;

use crate::harness::{
    Server, TestDatabase,
    admin::{exchange, status},
    certificates::Authority,
};

/// The arguments that open a console.
pub const CONSOLE: [&str; 2] = ["--console-listen", "127.0.0.1:0"];

/// A server's console.
#[derive(Clone, Copy)]
pub struct Console(pub SocketAddr);

/// A browser of the console: it has a cookie, and sends the headers that browsers send.
pub struct Browser<'a> {
    console: Console,
    authority: Option<&'a Authority>,
    /// `name=value` of the cookie. None before the login.
    pub cookie: Option<String>,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The status line and the headers, in lower case.
    pub head: String,
    pub body: String,
}

impl Server {
    /// Starts a server with a console.
    pub async fn start_with_console(
        database: &TestDatabase,
        arguments: &[&str],
    ) -> (Self, Console) {
        let server = Self::start_with(database, &[&CONSOLE, arguments].concat()).await;
        let console = server.console();
        (server, console)
    }

    /// The address of the console, from the log.
    pub fn console(&self) -> Console {
        let lines = self.log_lines();
        let line = lines.iter().find(|line| line["message"] == "serving the console");
        let address = line.and_then(|line| line["address"].as_str()?.parse().ok());
        Console(address.unwrap_or_else(|| panic!("no console in the log: {}", self.log())))
    }
}

impl Console {
    /// A browser without a session.
    pub const fn browser(self) -> Browser<'static> {
        Browser { console: self, authority: None, cookie: None }
    }

    /// The same by TLS.
    pub const fn tls_browser(self, authority: &Authority) -> Browser<'_> {
        Browser { console: self, authority: Some(authority), cookie: None }
    }

    /// A browser that is signed in with this token.
    pub async fn signed_in(self, token: &str) -> Browser<'static> {
        let mut browser = self.browser();
        let response = browser.log_in(token).await;
        assert_eq!(response.status, 303, "{response:?}");
        browser
    }
}

impl Browser<'_> {
    /// What the console answers to these bytes on a new connection.
    pub async fn send(&self, request: &[u8]) -> String {
        let stream = TcpStream::connect(self.console.0).await.expect("connected");
        match self.authority {
            None => exchange(stream, request).await,
            Some(authority) => {
                let stream = authority.handshake(stream, &["http/1.1"]).await;
                exchange(stream.expect("a handshake"), request).await
            }
        }
    }

    /// Sends a request with these headers and the cookie.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &str,
    ) -> Response {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        let has = |name: &str| headers.iter().any(|header| header.starts_with(name));
        if !has("host:") {
            head += &format!("host: {}\r\n", self.console.0);
        }
        if let Some(cookie) = self.cookie.as_ref().filter(|_| !has("cookie:")) {
            head += &format!("cookie: {cookie}\r\n");
        }
        for header in headers {
            head += &format!("{header}\r\n");
        }
        if method == "POST" {
            head += "content-type: application/x-www-form-urlencoded\r\n";
            head += &format!("content-length: {}\r\n", body.len());
        }
        let answer = self.send(format!("{head}\r\n{body}").as_bytes()).await;
        Response::parse(&answer)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request("GET", path, &["sec-fetch-site: same-origin"], "").await
    }

    /// Gets a page that must be there, and returns its HTML.
    pub async fn page(&self, path: &str) -> String {
        let response = self.get(path).await;
        assert_eq!(response.status, 200, "{path}: {}", response.body);
        response.body
    }

    /// Sends a form of the console.
    pub async fn post(&self, path: &str, form: &str) -> Response {
        self.request("POST", path, &["sec-fetch-site: same-origin"], form).await
    }

    /// Sends the login form, and keeps the cookie.
    pub async fn log_in(&mut self, token: &str) -> Response {
        let response = self.post("/login", &format!("token={}&next=/", encoded(token))).await;
        if let Some(cookie) = response.cookie() {
            self.cookie = Some(cookie.split(';').next().unwrap_or_default().to_owned());
        }
        response
    }
}

impl Response {
    fn parse(answer: &str) -> Self {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
        let status = status(head).unwrap_or_else(|| panic!("no response: {answer:?}"));
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(header, _)| *header == name).map(|(_, value)| value)
    }

    /// The value of Set-Cookie.
    pub fn cookie(&self) -> Option<&str> {
        self.header("set-cookie")
    }
}

/// A text as the value of a query or a form.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
