//! Every kind of page in light and dark, and for people who do not see it or use no mouse.

use serde_json::{Value, json};

use super::{
    pages::{Story, play},
    sessions::Desk,
};
use crate::harness::{chromium::Chromium, console::encoded, *};

const TOKEN: &str = "clerk-token-0123456789";
const ENTER: &str = "\u{e007}";

/// The texts whose color is too close to what is behind them, by WCAG 2.2, 1.4.3: below 4.5 to 1.
const FAINT: &str = r#"
const channels = color => (color.match(/[\d.]+/g) || []).map(Number);
const luminance = color => {
  const [red, green, blue] = channels(color).slice(0, 3).map(it => it / 255)
    .map(it => it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const behind = element => {
  for (; element; element = element.parentElement) {
    const color = getComputedStyle(element).backgroundColor;
    if (channels(color)[3] !== 0) return color;
  }
  return "rgb(255, 255, 255)";
};
const faint = [];
let checked = 0;
for (const element of document.querySelectorAll("body *")) {
  const has = [...element.childNodes].some(it => it.nodeType === 3 && it.data.trim());
  const isField = element.matches("input:not([type=hidden]), select");
  if (!has && !isField || !element.checkVisibility() || element.matches("option, script")) continue;
  checked += 1;
  const colors = [getComputedStyle(element).color, behind(element)];
  const [low, high] = colors.map(luminance).sort((a, b) => a - b);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5) faint.push(`${element.tagName} "${element.innerText}": ${ratio} ${colors}`);
}
return checked ? faint : ["no text"];
"#;

/// What is missing for people who hear a page or use its keyboard.
const INACCESSIBLE: &str = r#"
const all = selector => [...document.querySelectorAll(selector)];
const missing = [];
const require = (holds, what) => holds || missing.push(what);
require(document.documentElement.lang === "en", "the language");
require(document.title.trim().length > " - Passbook".length, "a title");
require(all("h1").length === 1 && all("h1")[0].innerText.trim(), "one h1");
require(all("main").length === 1 && all("main h1").length === 1, "the main landmark around it");
const skip = document.querySelector("body > a:first-child");
require(skip && document.querySelector(skip.getAttribute("href")), "a link that skips to the content");
for (const field of all("input:not([type=hidden]), select"))
  require(field.labels.length && field.labels[0].innerText.trim(), `a label: ${field.name}`);
for (const table of all("table")) {
  require(table.caption && table.caption.innerText.trim(), "a caption");
  require(table.querySelector("thead th"), "headings of a table");
  for (const th of table.querySelectorAll("th")) require(th.scope === "col", `scope: ${th.innerText}`);
}
for (const region of all(".scroll")) require(region.tabIndex === 0, "tables that keys can scroll");
const ids = all("[id]").map(it => it.id);
require(new Set(ids).size === ids.length, `ids that are there once: ${ids}`);
const levels = all("h1, h2, h3").map(it => Number(it.tagName[1]));
require(levels.every((level, index) => !index || level <= levels[index - 1] + 1), "levels of headings");
return missing;
"#;

/// One path for each kind of page, with something of everything that the page can have.
fn paths(story: &Story) -> Vec<String> {
    let (transaction, hold) = (&story.transfer.transaction_id, encoded(&story.hold.hold_id));
    let paths = [
        "/",
        "/?prefix=nobody",
        "/?prefix=%2F",
        "/account?id=alice",
        "/account?id=nobody",
        "/statement?account_id=alice",
        "/transactions",
        &format!("/transaction?id={transaction}"),
        "/holds?account_id=alice",
        &format!("/hold?id={hold}"),
        "/changes?account_id=alice",
        "/verify?account_id=alice",
        "/request",
        "/request?id=order-1",
        "/request?id=order-2",
        "/events",
        "/health",
        "/nothing",
    ];
    paths.map(str::to_owned).to_vec()
}

async fn list(browser: &Chromium, script: &str) -> Vec<String> {
    let list = browser.run(script).await;
    let texts = list.as_array().expect("a list").iter().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// The nodes of the accessibility tree, which is what a screen reader gets, by role and name.
async fn tree(browser: &Chromium) -> Vec<(String, String)> {
    browser.devtools("Accessibility.enable", json!({})).await;
    let tree = browser.devtools("Accessibility.getFullAXTree", json!({})).await;
    let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value["value"].as_str().unwrap_or_default().trim().to_owned();
    let heard = nodes.iter().filter(|node| node["ignored"] == false);
    heard.map(|node| (text(&node["role"]), text(&node["name"]))).collect()
}

/// What a screen reader would not find on the page.
async fn unheard(browser: &Chromium, has_navigation: bool) -> Vec<String> {
    let tree = tree(browser).await;
    let count = |role: &str| tree.iter().filter(|(it, _)| it == role).count();
    let mut missing = Vec::new();
    for (role, wanted) in [("main", 1), ("navigation", usize::from(has_navigation))] {
        if count(role) != wanted {
            missing.push(format!("{} of {role}", count(role)));
        }
    }
    let named = [
        "RootWebArea",
        "heading",
        "link",
        "button",
        "textbox",
        "combobox",
        "image",
        "table",
        "region",
    ];
    let nameless = tree.iter().filter(|(role, name)| named.contains(&&**role) && name.is_empty());
    missing.extend(nameless.map(|(role, _)| format!("a name of {role}")));
    missing
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_can_be_read_in_light_and_dark_and_heard() {
    let Some(browser) = Chromium::open(&["--window-size=1000,800"]).await else {
        return skipped("chromedriver is not installed: apt-get install chromium-driver");
    };
    let desk = Desk::open(&[]).await;
    let story = play(&desk.server.client_of(TOKEN)).await;
    let url = |path: &str| format!("http://{}{path}", desk.console.0);
    let prefer = async |scheme: &str| {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        browser.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    };
    let background = "return getComputedStyle(document.body).backgroundColor";
    let check = async |path: &str, is_login: bool| {
        let mut colors = Vec::new();
        for scheme in ["light", "dark"] {
            prefer(scheme).await;
            colors.push(browser.run(background).await);
            assert_eq!(list(&browser, FAINT).await, [""; 0], "{scheme} {path}");
        }
        assert_ne!(colors[0], colors[1], "{path}");
        assert_eq!(list(&browser, INACCESSIBLE).await, [""; 0], "{path}");
        assert_eq!(unheard(&browser, !is_login).await, [""; 0], "{path}");
    };

    browser.go(&url("/")).await;
    check("the login", true).await;
    browser.type_into("#token", "wrong").await;
    browser.press(ENTER).await;
    browser.sees("Not signed in").await;
    check("a failed login", true).await;
    browser.type_into("#token", TOKEN).await;
    browser.press(ENTER).await;
    browser.sees("Search accounts").await;
    for path in paths(&story) {
        browser.go(&url(&path)).await;
        check(&path, false).await;
    }

    // The checks find what they look for.
    browser.go(&url("/account?id=alice")).await;
    browser.run("document.querySelector('td').style.color = '#666'").await;
    assert!(!list(&browser, FAINT).await.is_empty(), "gray on dark gray");
    for (spoil, what) in [
        ("document.documentElement.lang = ''", "the language"),
        ("document.title = ''", "a title"),
        ("document.querySelector('h2').outerHTML = '<h1>Two</h1>'", "one h1"),
        ("document.querySelector('.skip').remove()", "a link that skips"),
        ("document.querySelector('th').removeAttribute('scope')", "scope"),
        ("document.querySelector('caption').remove()", "a caption"),
        ("document.querySelector('.scroll').tabIndex = -1", "tables that keys"),
        ("document.querySelector('h2').outerHTML = '<h3>Deep</h3>'", "levels"),
    ] {
        browser.go(&url("/account?id=alice")).await;
        browser.run(spoil).await;
        let missing = list(&browser, INACCESSIBLE).await;
        assert!(missing.iter().any(|it| it.starts_with(what)), "{spoil}: {missing:?}");
    }
    browser.go(&url("/")).await;
    let spoil = "for (const label of document.querySelectorAll('label')) \
        label.replaceWith(...label.querySelectorAll('input, select'))";
    browser.run(spoil).await;
    assert!(!list(&browser, INACCESSIBLE).await.is_empty(), "fields without labels");
    assert!(!unheard(&browser, true).await.is_empty(), "fields without names");
}
