//! Settings: each is a flag, a variable and a key, from one definition.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use tempfile::TempDir;

use crate::harness::{
    certificates::{Authority, text},
    *,
};

/// A setting as `serve --help` prints it.
#[derive(Clone, Debug)]
struct Setting {
    flag: String,
    /// `FILE`, `DURATION` and so on; None for a switch.
    value_name: Option<String>,
    key: String,
    variable: String,
    default: Option<String>,
}

async fn settings() -> Vec<Setting> {
    let help = passbook(&["serve", "--help"]).await.must_succeed().stdout;
    let mut settings = Vec::new();
    let blocks = help.split("\n      --").skip(1);
    for block in blocks {
        let mut first = block.lines().next().unwrap_or_default().split(' ');
        let name = first.next().unwrap_or_default();
        if name == "config" {
            continue;
        }
        let bracketed = |label: &str| {
            let (_, rest) = block.split_once(&format!("[{label}: "))?;
            let (text, _) = rest.split_once(']')?;
            Some(text.trim_end_matches('=').to_owned())
        };
        let missing = |what| panic!("--{name} has no {what} in the help:\n{block}");
        settings.push(Setting {
            flag: format!("--{name}"),
            value_name: first.next().map(|name| name.trim_matches(['<', '>']).to_owned()),
            key: bracketed("key").unwrap_or_else(|| missing("key")),
            variable: bracketed("env").unwrap_or_else(|| missing("variable")),
            // A long help text is on the next lines.
            default: bracketed("default").filter(|text| !text.is_empty()),
        });
    }
    settings
}

impl Setting {
    /// A valid value that requires no other setting; None if there is no such value.
    fn right(&self) -> Option<String> {
        match (self.key.as_str(), &self.default) {
            ("log", _) => Some("info".to_owned()),
            ("currency", _) => Some("ETH=18".to_owned()),
            ("contra_account", _) => Some("USD=world:usd".to_owned()),
            ("listen" | "admin_listen" | "console_listen", _) => Some("127.0.0.1:0".to_owned()),
            ("otlp_endpoint", _) => Some("http://127.0.0.1:4317".to_owned()),
            ("ephemeral" | "migrate" | "insecure", _) => Some("true".to_owned()),
            (_, Some(default)) => Some(default.clone()),
            (_, None) => None,
        }
    }

    fn wrong(&self) -> &'static str {
        match self.value_name.as_deref() {
            Some("URL") => "mysql://nowhere",
            Some("FILE") => "/no/such/file",
            Some("FILTER") => "passbook=shouting",
            None => "perhaps",
            Some(_) => "nonsense",
        }
    }

    /// The flag, with its value if it takes one.
    fn given(&self, value: &str) -> Vec<String> {
        match self.value_name {
            Some(_) => vec![self.flag.clone(), value.to_owned()],
            None => vec![self.flag.clone()],
        }
    }

    fn toml(&self, value: &str) -> String {
        match (self.value_name.as_deref(), value.parse::<u64>()) {
            (None, _) if value == "true" => format!("{} = true\n", self.key),
            (Some("CODE=SCALE" | "CODE=ACCOUNT_ID"), _) => format!("{} = [{value:?}]\n", self.key),
            (Some("N" | "BYTES"), Ok(number)) => format!("{} = {number}\n", self.key),
            _ => format!("{} = {value:?}\n", self.key),
        }
    }
}

/// Runs `config check`, with a settings file if there is one.
async fn check(environment: &[(&str, &str)], arguments: &[String], file: Option<&str>) -> Outcome {
    let folder = tempfile::tempdir().expect("a folder");
    let mut all = vec!["config".to_owned(), "check".to_owned()];
    if let Some(text) = file {
        let path = folder.path().join("passbook.toml");
        fs::write(&path, text).expect("written");
        all.extend(["--config".to_owned(), path.to_str().expect("a plain path").to_owned()]);
    }
    all.extend(arguments.iter().cloned());
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    passbook_in(environment, &all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_setting_is_a_flag_a_variable_and_a_key() {
    let settings = settings().await;
    assert!(settings.len() >= 35, "{} settings", settings.len());
    for setting in &settings {
        let Setting { flag, key, variable, .. } = setting;
        assert_eq!(key.replace('_', "-"), flag[2..], "one name");
        assert_eq!(*variable, format!("PASSBOOK_{}", key.to_uppercase()), "one name");
        if let Some(value) = setting.right() {
            check(&[], &setting.given(&value), None).await.must_succeed();
            check(&[(variable, &value)], &[], None).await.must_succeed();
            check(&[], &[], Some(&setting.toml(&value))).await.must_succeed();
        }
        let wrong = setting.wrong();
        if setting.value_name.is_some() {
            let by_flag = check(&[], &setting.given(wrong), None).await;
            must_be_usage_error(&by_flag, &[flag, key], &format!("{flag} {wrong}"));
        }
        let by_variable = check(&[(variable, wrong)], &[], None).await;
        must_be_usage_error(&by_variable, &[flag, key], &format!("{variable}={wrong}"));
        let by_key = check(&[], &[], Some(&setting.toml(wrong))).await;
        must_be_usage_error(&by_key, &[key], &setting.toml(wrong));
        by_key.must_fail(2);
        // A kind of value that no setting has.
        let by_type = check(&[], &[], Some(&format!("{key} = 2026-11-25\n"))).await;
        must_be_usage_error(&by_type, &[key], &format!("{key} = 2026-11-25"));
    }
}

/// Asserts a usage error that contains one of the names.
fn must_be_usage_error(outcome: &Outcome, names: &[&str], what: &str) {
    assert_eq!(outcome.code, Some(2), "{what}: {}{}", outcome.stdout, outcome.stderr);
    assert!(names.iter().any(|name| outcome.stderr.contains(name)), "{what}: {}", outcome.stderr);
    assert_eq!(outcome.stdout, "", "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_win_over_variables_over_the_file_over_defaults() {
    // The error shows which setting applied, since no database can be opened.
    let url = |name: &str| format!("sqlite:///no/such/folder/{name}.db?mode=rwc");
    let (by_flag, by_variable, by_key) = (url("flag"), url("variable"), url("key"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("passbook.toml");
    fs::write(&file, format!("database_url = {by_key:?}\n")).expect("written");
    let file = file.to_str().expect("a plain path");
    let variable = ("PASSBOOK_DATABASE_URL", by_variable.as_str());
    let config = ("PASSBOOK_CONFIG", file);
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let with_file = [&serve[..], &["--config", file]].concat();
    let with_both = [&with_file[..], &["--database-url", &by_flag]].concat();
    for (environment, arguments, who) in [
        (&[variable][..], &with_both, "flag"),
        (&[variable], &with_file, "variable"),
        (&[], &with_file, "key"),
        (&[config], &serve.to_vec(), "key"),
    ] {
        let outcome = passbook_in(environment, arguments).await;
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        let opened = format!("/no/such/folder/{who}.db");
        assert!(outcome.stderr.contains(&opened), "{who}: {}", outcome.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_help_names_no_key_that_the_file_may_not_have() {
    let keys: Vec<_> = settings().await.into_iter().map(|setting| setting.key).collect();
    for command in ["healthcheck", "bench", "migrate", "export", "import", "deposit"] {
        let help = passbook(&[command, "--help"]).await.must_succeed().stdout;
        for argument in help.split("\n      --").filter(|text| text.contains("[key: ")) {
            assert!(argument.contains("[env: PASSBOOK_"), "{command}: {argument}");
        }
        let named = help.split("[key: ").skip(1).filter_map(|rest| rest.split(']').next());
        let named: Vec<_> = named.collect();
        assert!(named.contains(&"log"), "{command}: {named:?}");
        let unknown: Vec<_> =
            named.iter().filter(|key| !keys.iter().any(|it| it == *key)).collect();
        assert!(unknown.is_empty(), "{command}: {unknown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_file_is_reported_in_one_line_that_names_the_key() {
    for (text, why) in [
        ("listn = \"127.0.0.1:0\"", "there is no setting \"listn\": did you mean listen?"),
        ("xyzzy = 1", "there is no setting \"xyzzy\""),
        ("[serve]\nlisten = 1", "there is no setting \"serve\""),
        ("config = \"other.toml\"", "there is no setting \"config\""),
        ("calls_max = [1]", "calls_max must be a text or a number"),
        ("migrate = \"yes\"", "migrate must be true or false"),
        ("currency = [true]", "currency must be a list of texts"),
        ("calls_max = 0", "calls_max: invalid value '0'"),
        ("calls_max = 1\ncalls_max = 2", "line 2: duplicate key"),
        ("listen = ", "line 1: "),
    ] {
        let outcome = check(&[], &[], Some(text)).await;
        let said = outcome.must_fail(2);
        assert!(said.contains(why), "{text}: {said}");
    }
    check(&[("PASSBOOK_CONFIG", "/no/such/file")], &[], None)
        .await
        .must_fail_with(2, "/no/such/file: cannot be read");
}

/// Files of a server with TLS and tokens. Their content does not matter here.
fn files() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["crt", "key", "ca", "tokens", "policy", "admin-token"] {
        fs::write(folder.path().join(name), "").expect("written");
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_contradict_each_other_are_an_error_that_names_them() {
    let folder = files();
    let (crt, key) = ("tls_certificate_file = \"crt\"", "tls_key_file = \"key\"");
    let (ca, tokens) = ("tls_client_ca_file = \"ca\"", "tokens_file = \"tokens\"");
    let (policy, open) = ("policy_file = \"policy\"", "listen = \"0.0.0.0:0\"");
    let (admin, admin_tls) = ("admin_listen = \"0.0.0.0:0\"", "admin_tls = true");
    let admin_token = "admin_token_file = \"admin-token\"";
    for (lines, names) in [
        (&[crt][..], &["tls_certificate_file", "tls_key_file"][..]),
        (&[key], &["tls_key_file", "tls_certificate_file"]),
        (&[ca, policy], &["tls_client_ca_file", "tls_certificate_file"]),
        (&[tokens], &["tokens_file", "policy_file"]),
        (&[crt, key, ca], &["tls_client_ca_file", "policy_file"]),
        (&[policy], &["policy_file", "tokens_file", "tls_client_ca_file"]),
        (&[open], &["listen", "TLS", "authentication", "insecure"]),
        (&[open, crt, key], &["listen", "authentication", "insecure"]),
        (&[open, tokens, policy], &["listen", "TLS", "insecure"]),
        (&[admin_tls, crt, key], &["admin_tls", "admin_listen"]),
        (&[admin_token], &["admin_token_file", "admin_listen"]),
        (&[admin_tls, admin], &["admin_tls", "tls_certificate_file"]),
        (&[admin, admin_token], &["admin_token_file", "admin_listen", "admin_tls", "insecure"]),
    ] {
        let text = lines.join("\n").replace("= \"", &format!("= \"{}/", folder.path().display()));
        let text = text.replace(&format!("{}/0.0.0.0", folder.path().display()), "0.0.0.0");
        let outcome = check(&[], &[], Some(&text)).await;
        must_be_usage_error(&outcome, &names[..1], &text);
        for name in names {
            assert!(outcome.stderr.contains(name), "{text}: {}", outcome.stderr);
        }
        outcome.must_fail(2);
        // `serve` prints the same.
        let file = folder.path().join("passbook.toml");
        fs::write(&file, &text).expect("written");
        let serve = ["serve", "--config", file.to_str().expect("a plain path")];
        let served = passbook(&serve).await;
        // Except for the file that they come from.
        let why = |said: &str| said.split(" (").next().unwrap_or_default().trim_end().to_owned();
        assert_eq!(served.code, Some(2));
        assert_eq!(why(&served.stderr), why(&outcome.stderr));
    }
    check(&[], &["--insecure".to_owned()], Some(open)).await.must_succeed();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_repeats_a_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("written");
        folder.path().join(name).to_str().expect("a plain path").to_owned()
    };
    let secret = "hunter2secret";
    let url = format!("postgres://someone:{secret}@127.0.0.1/passbook?nonsense=1");
    let password = file("password", secret);
    let tokens = file("tokens", &format!("[[token]]\nidentity = \"a\"\nsha256 = \"{secret}\"\n"));
    let broken = file("broken", &format!("[[token]]\nidentity = \"a\"\ntoken = \"{secret}\n"));
    let policy = file("policy", &credentials::identity("a", &["read"], &[""]));
    let both =
        [("PASSBOOK_DATABASE_URL", url.as_str()), ("PASSBOOK_DATABASE_PASSWORD_FILE", &password)];
    let with = |tokens: &str| {
        ["--tokens-file", tokens, "--policy-file", &policy].map(str::to_owned).to_vec()
    };
    let mut outcomes = vec![
        check(&both[..1], &[], None).await,
        check(&both, &[], None).await,
        check(&[], &["--database-url".to_owned(), url.clone()], None).await,
        check(&[], &[], Some(&format!("database_url = {url:?}"))).await,
        check(&[], &[], Some(&format!("database_url = \"{url}"))).await,
        check(&[], &[], Some(&format!("database_url = [{url:?}]"))).await,
        check(&[], &with(&tokens), None).await,
        check(&[], &with(&broken), None).await,
    ];
    // Both are rejected with a password, and the first of each also for its scheme.
    for (key, scheme) in [
        ("jwt_jwks", "http"),
        ("jwt_jwks", "https"),
        ("otlp_endpoint", "ftp"),
        ("otlp_endpoint", "http"),
    ] {
        let url = format!("{scheme}://someone:{secret}@issuer.test/keys");
        let variable = format!("PASSBOOK_{}", key.to_uppercase());
        let flag = format!("--{}", key.replace('_', "-"));
        let by_variable = check(&[(&variable, &url)], &[], None).await;
        let said = by_variable.must_fail(2);
        assert!(said.starts_with(&format!("{variable}: ")) && said.contains("must "), "{said}");
        let by_key = check(&[], &[], Some(&format!("{key} = {url:?}"))).await;
        assert!(by_key.must_fail(2).contains(key), "{}", by_key.stderr);
        let by_flag = check(&[], &[flag.clone(), url], None).await;
        assert!(by_flag.stderr.contains(&flag), "{}", by_flag.stderr);
        outcomes.extend([by_variable, by_key, by_flag]);
    }
    for outcome in outcomes {
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains(secret), "{}", outcome.stderr);
    }
    let keys = format!("https://someone:{secret}@issuer.test/keys");
    let urls = [("PASSBOOK_JWT_JWKS", keys.as_str()), ("PASSBOOK_OTLP_ENDPOINT", &keys)];
    let all = [both, urls].concat();
    let help = passbook_in(&all, &["serve", "--help"]).await.must_succeed();
    assert!(!help.stdout.contains(secret), "{}", help.stdout);
    let path = Path::new(&password);
    assert!(help.stdout.contains("database-password-file") && path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_the_arguments_is_warned_of() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let url = database.url().replacen("postgres@", "postgres:hunter2secret@", 1);
    assert_ne!(url, database.url());
    let warning = "the database's password is on the command line";
    let shown = Server::start_at(&url, &[]).await;
    assert!(shown.log().contains(warning), "{}", shown.log());
    assert!(!shown.log().contains("hunter2secret"), "{}", shown.log());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("passbook.toml");
    fs::write(&file, format!("database_url = {url:?}\n")).expect("written");
    let file = file.to_str().expect("a plain path");
    let kept = Server::start_by(&["--config", file]).await;
    assert!(!kept.log().contains(warning), "{}", kept.log());
}

/// The warnings of `config check`, and of a server with these arguments, which must be the same.
async fn warnings(arguments: &[&str]) -> Vec<String> {
    let checked = passbook(&[&["config", "check"], arguments].concat()).await.must_succeed();
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = Server::start_with(&database, arguments).await;
    let messages = |log: &str| {
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let warnings = lines.filter(|line: &serde_json::Value| line["level"] == "WARN");
        warnings.map(|line| line["message"].as_str().expect("a text").to_owned()).collect()
    };
    let warnings: Vec<String> = messages(&checked.stderr);
    assert_eq!(messages(&server.log()), warnings, "{arguments:?}");
    warnings
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_port_that_other_machines_can_read_is_warned_of() {
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let token_file = text(&authority.file("admin-token"));
    fs::write(&token_file, "token").expect("written");
    for file in ["admin-token", "tls.key"] {
        fs::set_permissions(authority.file(file), Permissions::from_mode(0o600)).expect("set");
    }
    let certificate = authority.arguments();
    let certificate: Vec<&str> = certificate.iter().map(String::as_str).collect();
    let tls = [&certificate[..], &["--admin-tls"]].concat();
    let token = ["--admin-token-file", &token_file];
    let both = [&tls[..], &token].concat();
    let open = ["--admin-listen", "0.0.0.0:0"];
    let neither = "has neither TLS nor a token: set admin_tls and admin_token_file";
    for (more, why) in [
        (&[][..], Some(neither)),
        (&certificate, Some(neither)),
        (&tls, Some("requires no token: set admin_token_file")),
        (&both, None),
        (&["--insecure"], None),
        (&[&["--insecure"][..], &token].concat(), None),
    ] {
        let warnings = warnings(&[&open, more].concat()).await;
        let expected = why.map(|why| {
            format!("admin_listen 0.0.0.0:0 can be reached by other machines, and {why}")
        });
        assert_eq!(warnings, Vec::from_iter(expected), "{more:?}");
    }
    for loopback in ["127.0.0.1:0", "[::1]:0", "localhost:0"] {
        let port = ["--admin-listen", loopback];
        assert_eq!(warnings(&port).await, [""; 0], "{loopback}");
        assert_eq!(warnings(&[&port[..], &token].concat()).await, [""; 0], "{loopback}");
    }
    fs::set_permissions(&token_file, Permissions::from_mode(0o644)).expect("set");
    let port = ["--admin-listen", "127.0.0.1:0"];
    let exposed = format!("admin_token_file {token_file} is open to all users of this machine");
    assert_eq!(warnings(&[&port[..], &token].concat()).await, [exposed]);
    let key_file = authority.file("tls.key");
    fs::set_permissions(&key_file, Permissions::from_mode(0o644)).expect("set");
    let exposed = format!("tls_key_file {} is open to all users of this machine", text(&key_file));
    assert_eq!(warnings(&certificate).await, [exposed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_the_database_that_others_can_read_is_warned_of() {
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let (certificate, key) = (authority.file("tls.crt"), text(&authority.file("tls.key")));
    let url = format!(
        "postgres://user:secret@127.0.0.1/ledger?sslmode=require&sslcert={}&sslkey={key}",
        certificate.display()
    );
    let settings = text(&authority.file("passbook.toml"));
    fs::write(&settings, format!("database_url = '{url}'")).expect("written");
    for (mode, is_warned) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
        for file in [&key, &settings] {
            fs::set_permissions(file, Permissions::from_mode(mode)).expect("set");
        }

        let checked = passbook(&["config", "check", "--config", &settings]).await.must_succeed();

        for file in [format!("sslkey {key}"), format!("config {settings}")] {
            let warning = format!("{file} is open to all users of this machine");
            assert_eq!(
                checked.stderr.contains(&warning),
                is_warned,
                "{mode:o}: {}",
                checked.stderr
            );
        }
    }
    fs::write(&settings, "listen = '127.0.0.1:0'").expect("written");
    let checked = passbook(&["config", "check", "--config", &settings]).await.must_succeed();
    assert!(!checked.stderr.contains("open to all"), "no secret: {}", checked.stderr);
}
