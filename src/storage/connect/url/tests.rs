use crate::storage::connect::{target::HOSTS_MAX, url::*};

fn options(text: &str) -> Vec<PgConnectOptions> {
    match DatabaseUrl::parse(text).unwrap().0 {
        Options::Postgres(all) => all,
        Options::Sqlite(_) => panic!("not PostgreSQL"),
    }
}

fn hosts(text: &str) -> Vec<(String, u16, String)> {
    let place = |it: &PgConnectOptions| {
        (it.get_host().to_owned(), it.get_port(), it.get_username().to_owned())
    };
    options(text).iter().map(place).collect()
}

fn wrong(text: &str) -> DatabaseUrlError {
    DatabaseUrl::parse(text).map(drop).expect_err(text)
}

/// As sqlx will send it.
fn password(text: &str) -> String {
    let url = options(text)[0].to_url_lossy();
    let encoded = url.password().unwrap_or_default();
    percent_encoding::percent_decode_str(encoded).decode_utf8().unwrap().into_owned()
}

#[test]
fn every_host_gets_the_user_and_a_port_of_its_own() {
    let [one, two, three] =
        &hosts("postgres://u:p%2Cw@h1:5433, h2,[::1]:5434/db?sslmode=disable")[..]
    else {
        panic!("three hosts");
    };
    assert_eq!(*one, ("h1".to_owned(), 5433, "u".to_owned()));
    assert_eq!((&*two.0, &*two.2), ("h2", "u"));
    assert_eq!(*three, ("::1".to_owned(), 5434, "u".to_owned()));
    assert_eq!(hosts("postgres://u:a,b@h/db").len(), 1, "a comma in a password");
    assert_eq!(hosts("postgresql://h1,h2/db?target_session_attrs=read-write").len(), 2);
}

#[test]
fn an_ipv6_address_is_a_host_without_its_brackets() {
    for (text, host) in [
        ("postgres://u@[::1]:5433/db", "::1"),
        ("postgres://u@[2001:db8::7]/db", "2001:db8::7"),
        ("postgres://[fe80::1%25eth0]:5433/db", "fe80::1%eth0"),
        ("postgres:///db?host=[::1]", "::1"),
        ("postgres:///db?host=::1", "::1"),
        ("postgres:///db?host=%5B::1%5D", "::1"),
        ("postgres:///db?hostaddr=::1", "::1"),
    ] {
        assert_eq!(hosts(text)[0].0, host, "{text}");
    }
    for text in ["postgres://::1:5432/db", "postgres://[::1/db", "postgres://[h]/db"] {
        assert_eq!(wrong(text), DatabaseUrlError::Hosts, "{text}");
    }
}

#[test]
fn a_password_is_what_was_written_once_it_is_decoded() {
    for (written, meant) in [
        ("a%23b%2Fc%3Fd%40e%25f", "a#b/c?d@e%f"),
        ("a+b c:d,e&f=g", "a+b c:d,e&f=g"),
        ("%C3%A9%20\u{e9}", "\u{e9} \u{e9}"),
        ("50%25off", "50%off"),
    ] {
        assert_eq!(password(&format!("postgres://u:{written}@h/db")), meant);
    }
    assert_eq!(password("postgres://h/db?user=u&password=a%23+b"), "a#+b");
    assert!(DatabaseUrl::has_password("postgres://u:p@h/db"));
    assert!(DatabaseUrl::has_password("postgres://h/db?x=y&pass%77ord=p"));
    assert!(!DatabaseUrl::has_password("postgres://u@h:5432/db?user=a:b"));
}

/// Whatever is cut out of a password by a character that ends a part of a URL, no piece of it is
/// in the error.
#[test]
fn a_password_that_is_not_escaped_is_refused_with_the_escapes_and_never_shown() {
    for password in [
        "2024#Autumn",
        "#Autumn",
        "Autumn#",
        "2024/Autumn",
        "2024?Autumn",
        "20?Autumn=24",
        "2024@Autumn",
        "20@24@Autumn",
        "2024%Autumn",
        "2024%",
        "%zzAutumn",
        "%4",
        "Autumn%00",
        "20/24?Autumn#x@y%",
        "Aut\numn",
        "Aut\tumn",
        "%FFAutumn",
        "a?Autumn&b",
    ] {
        for text in [
            format!("postgres://app:{password}@127.0.0.1/db"),
            format!("postgres://app:{password}@h1:5432,[::1]:5433/db?sslmode=require"),
            format!("postgresql://{password}:app@127.0.0.1/db"),
        ] {
            let error = wrong(&text).to_string();
            for escape in ["%23", "%2F", "%3F", "%40", "%25"] {
                assert!(error.contains(escape), "{text}: {error}");
            }
            assert!(!error.contains("Autumn") && !error.contains("2024"), "{text}: {error}");
        }
    }
    for text in [
        "postgres://h/db?user=u&password=a&Autumn=24",
        "postgres://h/db?user=u&password=a&Autumn",
        "postgres://h/db?password=a#Autumn",
        "postgres://h/db?password=a@Autumn",
        "postgres://app:Autumn/db",
        "postgres://app:Autumn:5432/db",
        "postgres://Autumn%20a/db",
    ] {
        assert!(!wrong(text).to_string().contains("Autumn"), "{text}: {}", wrong(text));
    }
}

#[test]
fn what_changes_nothing_is_taken_as_libpq_takes_it() {
    for parameters in [
        "sslmode=require&channel_binding=require",
        "sslmode=require&connect_timeout=10&application_name=x",
        "keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3",
        "tcp_user_timeout=10000&fallback_application_name=x&load_balance_hosts=random",
        "target_session_attrs=any",
        "target_session_attrs=primary&gssencmode=disable&sslnegotiation=postgres",
        "gssencmode=prefer&channel_binding=prefer&sslsni=1&ssl_min_protocol_version=TLSv1.2",
        "client_encoding=UTF8&options=endpoint%3Dep-1",
        "options%5Bsearch_path%5D=bank&options[jit]=on",
        "sslrootcert=system",
        "sslmode=verify-full&sslrootcert=system",
    ] {
        let options = options(&format!("postgres://u@h/db?{parameters}"));
        assert_eq!((options.len(), options[0].get_database()), (1, Some("db")), "{parameters}");
    }
    let [options] = &options("postgres://u@h/db?options%5Bsearch_path%5D=bank")[..] else {
        panic!("one host");
    };
    assert_eq!(options.get_options(), Some("-c search_path=bank"));
}

#[test]
fn what_would_change_something_is_refused_by_name_with_what_to_do() {
    for (parameters, name, advice) in [
        ("target_session_attrs=standby", "target_session_attrs", "read-write"),
        ("target_session_attrs=prefer-standby", "target_session_attrs", "leave it out"),
        ("gssencmode=require", "gssencmode", "TLS"),
        ("channel_binding=perhaps", "channel_binding", "disable, prefer or require"),
        ("sslmode=no-verify", "sslmode", "verify-full"),
        ("sslmode=require&sslrootcert=system", "sslrootcert", "verify-full"),
        ("ssl=true", "ssl", "sslmode=verify-full"),
        ("sslpassword=x", "sslpassword", "passphrase"),
        ("passfile=/x", "passfile", "database_password_file"),
        ("schema=bank", "schema", "options[search_path]=NAME"),
        ("pgbouncer=true", "pgbouncer", "leave it out"),
        ("client_encoding=LATIN1", "client_encoding", "UTF8"),
        ("port=70000", "port", "65535"),
        ("hostaddr=h", "hostaddr", "IP address"),
    ] {
        let error = wrong(&format!("postgres://h/db?{parameters}")).to_string();
        let expected = format!("has the parameter {name}: ");
        assert!(error.starts_with(&expected) && error.contains(advice), "{parameters}: {error}");
    }
    let error = wrong("postgres://h/db?conect_timeout=5").to_string();
    assert!(error.starts_with("has an unknown parameter: conect_timeout; leave it out"), "{error}");
}

#[test]
fn what_is_wrong_is_named() {
    assert_eq!(wrong("mysql://h/db"), DatabaseUrlError::Scheme);
    for text in [
        "sqlite://x?mode=memory",
        "sqlite://x?mode=%6demory",
        "sqlite::memory:",
        "sqlite://:memory:",
        "sqlite://%3Amemory%3A",
        "sqlite://%3amemory%3a?mode=rwc",
        "sqlite://",
        "sqlite:",
        "sqlite://?mode=rwc",
        "sqlite://file:x%3Fmode=memory",
        "sqlite://file%3A",
        "sqlite://x?vfs=memdb",
    ] {
        assert_eq!(wrong(text), DatabaseUrlError::InMemory, "{text}");
    }
    for text in ["sqlite://:memory:.db", "sqlite://a:b.db", "sqlite://./file:x?mode=ro"] {
        assert!(DatabaseUrl::parse(text).is_ok(), "{text}");
    }
    assert_eq!(wrong("sqlite://x?mode=perhaps"), DatabaseUrlError::MalformedSqlite);
    for text in [
        "postgres://h1,/db",
        "postgres://,h2/db",
        "postgres://h1:port/db",
        "postgres://h1:0/db",
        "postgres://h1,h2:70000/db",
        "postgres://a b/db",
    ] {
        assert_eq!(wrong(text), DatabaseUrlError::Hosts, "{text}");
    }
    assert_eq!(wrong("postgres:///db?host=h1,h2"), DatabaseUrlError::HostsAsParameter);
    assert_eq!(wrong("postgres:///db?host=h1%2Ch2"), DatabaseUrlError::HostsAsParameter);
    let many = format!("postgres://{}h/db", "h,".repeat(HOSTS_MAX));
    assert_eq!(wrong(&many), DatabaseUrlError::HostsMax);
}

#[test]
fn sockets_are_folders() {
    for text in ["postgres://u@%2Frun%2Fpg:5433/db", "postgres:///db?host=/run/pg&port=5433&user=u"]
    {
        let [options] = &options(text)[..] else { panic!("one host") };
        assert_eq!(options.get_socket().map(|it| it.to_str()), Some(Some("/run/pg")), "{text}");
        assert_eq!((options.get_port(), options.get_username()), (5433, "u"));
    }
}

#[test]
fn the_files_of_sqlite_are_beside_the_file_that_a_link_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    std::os::unix::fs::symlink("ledger.db", base.join("link.db")).unwrap();
    let url = DatabaseUrl::parse(&format!("sqlite://{}/link.db", base.display())).unwrap();
    let names = ["ledger.db", "ledger.db-wal", "ledger.db-shm"];
    assert_eq!(url.files(), names.map(|name| base.join(name)));
}
