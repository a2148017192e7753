//! A headless Chromium, driven through chromedriver (W3C WebDriver).

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{PATIENCE, eventually};

/// The key of an element's id in responses (WebDriver, 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser window, closed when dropped.
pub struct Chromium {
    driver: Child,
    port: u16,
    http: Http<HttpConnector, Full<Bytes>>,
    session: String,
}

impl Chromium {
    /// Opens a window. None if chromedriver is not installed.
    pub async fn open(preferences: &[&str]) -> Option<Self> {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = command.spawn().ok()?;
        let lines = BufReader::new(driver.stdout.take().expect("stdout is piped")).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok()
        });
        let (port, http) =
            (port.expect("a port"), Http::builder(TokioExecutor::new()).build_http());
        let mut browser = Self { driver, port, http, session: String::new() };
        // Neither root nor a container has Chromium's sandbox or a large /dev/shm.
        let arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage"];
        let arguments = [&arguments, preferences].concat();
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments }, "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.call("POST", "/session", &capabilities).await;
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        Some(browser)
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let uri = format!("http://127.0.0.1:{}{path}", self.port);
        let request = Request::builder().method(method).uri(uri);
        let request = request.header("content-type", "application/json").body(Full::from(body));
        let answering = self.http.request(request.expect("a request"));
        let answer = timeout(PATIENCE, answering).await.expect("in time").expect("an answer");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
        let value = answer["value"].take();
        assert!(value.get("error").is_none(), "{method} {path}: {value}");
        value
    }

    async fn command(&self, method: &str, path: &str, body: Value) -> Value {
        self.call(method, &format!("/session/{}{path}", self.session), &body).await
    }

    /// Shows a page.
    pub async fn go(&self, url: &str) {
        self.command("POST", "/url", json!({ "url": url })).await;
    }

    /// Runs a script in the page, with `return` for its value.
    pub async fn run(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Runs a command of the DevTools protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.command("POST", "/goog/cdp/execute", body).await
    }

    /// Types keys into the element that this selector of CSS finds.
    pub async fn type_into(&self, selector: &str, keys: &str) {
        let using = json!({ "using": "css selector", "value": selector });
        let element = self.command("POST", "/element", using).await;
        let element = element[ELEMENT].as_str().expect("an element").to_owned();
        self.command("POST", &format!("/element/{element}/value"), json!({ "text": keys })).await;
    }

    /// Presses keys, wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let presses = keys.chars().flat_map(|key| {
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        });
        let presses: Vec<_> = presses.collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": presses });
        self.command("POST", "/actions", json!({ "actions": [keyboard] })).await;
    }

    /// The text that a person sees.
    pub async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page has this text.
    pub async fn sees(&self, text: &str) {
        eventually(text, async || self.text().await.contains(text)).await;
    }

    /// What the console of the browser's developer tools has since the last call: errors of scripts, and
    /// what the policy of the page has blocked.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.command("POST", "/se/log", json!({ "type": "browser" })).await;
        let lines = log.as_array().cloned().unwrap_or_default();
        lines.iter().map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// A picture of the page, as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let picture = self.command("GET", "/screenshot", Value::Null).await;
        STANDARD.decode(picture.as_str().expect("a text")).expect("base64")
    }

    /// The size of the window.
    pub async fn resize(&self, width: u32, height: u32) {
        self.command("POST", "/window/rect", json!({ "width": width, "height": height })).await;
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // chromedriver ends its browser when it is asked to, and not when it is killed.
        if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) {
            let path = format!("/session/{}", self.session);
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let _ = write!(stream, "DELETE {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
            // The response comes when the browser has ended.
            let _ = stream.read(&mut [0; 1024]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
