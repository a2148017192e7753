//! `deploy/` fits the program. `scripts/check_deploy` checks its syntax.

use std::{collections::BTreeSet, fs, path::Path};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::harness::{
    certificates::{Authority, text},
    credentials::{Callers, bearer, entry, identity},
    jwt::{AUDIENCE, ISSUER, JwksServer, SigningKey, key_set},
    *,
};

/// Metrics of Prometheus itself.
const PROMETHEUS: [&str; 1] = ["up"];

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The metrics in these queries, without the suffixes of histograms.
fn metrics_of<'a>(queries: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for query in queries {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut rest = query;
        while let Some(begin) = rest.find(is_of_name) {
            let word = &rest[begin..];
            let end = word.find(|c| !is_of_name(c)).unwrap_or(word.len());
            // A series selector. No other word has a brace behind it.
            if word[end..].starts_with('{') {
                let name = &word[..end];
                let histogram = ["_bucket", "_sum", "_count"];
                let of = histogram.into_iter().find_map(|suffix| name.strip_suffix(suffix));
                names.insert(of.unwrap_or(name).to_owned());
            }
            rest = &word[end..];
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_alerts_query_existing_metrics() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("grafana/passbook.json")).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries: Vec<&str> = targets.filter_map(|target| target["expr"].as_str()).collect();
    assert!(queries.len() > 30, "{} queries on the dashboard", queries.len());
    let on_dashboard = metrics_of(queries);
    // Labels and annotations have no braces after a word.
    let in_alerts = metrics_of([read("prometheus/alerts.yaml").as_str()]);
    assert!(in_alerts.len() > 10, "{in_alerts:?}");

    let database = TestDatabase::create(Kind::Sqlite).await;
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let callers =
        Callers::new(&[("billing", "billing-token")], &identity("billing", &["*"], &[""]));
    let issuer = JwksServer::start().await;
    issuer.publish(&key_set(&[&SigningKey::ed("one")]));
    let url = issuer.url();
    let more = ["--identity-rate-max", "3", "--jwt-jwks", &url];
    let of_issuer = ["--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE];
    let more: Vec<_> = more.into_iter().chain(of_issuer).map(str::to_owned).collect();
    let arguments = [authority.arguments(), callers.arguments().to_vec(), more].concat();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (server, admin) = Server::start_with_admin(&database, &arguments).await;
    let channel = authority.connect(&server, None).await.expect("connected");
    let client = Client::over(channel.clone(), bearer("billing-token"));
    // A series appears with its first count: an applied request, a repeat, a shed call, a call
    // without a valid token, and a failed TLS handshake.
    client.create_account(account_of("a", "USD")).await.expect("opened");
    let change = deposit("a", "1");
    client.deposit(change.clone()).await.expect("deposited");
    client.deposit(change).await.expect("repeated");
    // Together, because a slow machine makes few calls a second one after another.
    let burst = join_all((0..100).map(|_| {
        let client = client.clone();
        async move { client.deposit(deposit("a", "1")).await }
    }));
    let is_shed = |answer: &Result<_, Status>| {
        answer.as_ref().is_err_and(|status| status.code() == Code::ResourceExhausted)
    };
    assert!(burst.await.iter().any(is_shed), "100 are too many");
    let unknown = Client::over(channel, bearer("no-token"));
    must_fail(unknown.deposit(deposit("a", "1")).await, Reason::Unauthenticated);
    let mut without_tls = TcpStream::connect(server.address).await.expect("connected");
    without_tls.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");

    eventually("the failed handshake is counted", async || {
        admin.metrics().await.value("passbook_tls_handshake_failures_total") > 0.0
    })
    .await;
    let text = admin.metrics().await.text;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.filter_map(|line| line.split(' ').next()).chain(PROMETHEUS);
    let there: BTreeSet<String> = names.map(str::to_owned).collect();
    let missing: Vec<_> =
        on_dashboard.union(&in_alerts).filter(|it| !there.contains(*it)).collect();
    assert!(missing.is_empty(), "asked for, and not there: {missing:?}");
}

/// The settings of the manifests, with their paths in an existing folder.
#[tokio::test]
async fn the_settings_in_the_manifests_are_valid() {
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let folder = authority.file("etc");
    let of_authority = |name| fs::read_to_string(authority.file(name)).expect("read");
    for (file, content) in [
        ("database/password", "secret".to_owned()),
        ("database/ca.crt", of_authority("ca.crt")),
        ("tls/tls.crt", of_authority("tls.crt")),
        ("tls/tls.key", of_authority("tls.key")),
        ("tokens/tokens.toml", entry("billing", "billing-token")),
        ("policy/policy.toml", read("kubernetes/policy.toml")),
        ("admin/token", "token".to_owned()),
    ] {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("applied");
        fs::write(&path, content).expect("written");
    }
    for name in ["kubernetes/passbook.toml", "systemd/passbook.toml"] {
        let settings = read(name).replace("/etc/passbook/", &format!("{}/", text(&folder)));
        let file = folder.join("passbook.toml");
        fs::write(&file, &settings).expect("written");
        let check = ["config", "check", "--config", &text(&file)];
        let checked = passbook(&check).await.must_succeed();
        let warnings = ["other machines", "sslmode"].map(|words| checked.stderr.contains(words));
        assert_eq!(warnings, [false, false], "{name}: {}", checked.stderr);
        // A wrong setting would be found.
        fs::write(&file, settings.replace("admin_listen", "admin_lisen")).expect("written");
        let wrong = passbook(&check).await;
        assert_eq!(wrong.code, Some(2), "{name}: {}", wrong.stderr);
    }
}
