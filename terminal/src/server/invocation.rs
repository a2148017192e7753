//! The command line of this process, for the commands that errors advise.

/// The flags that say which server is called, and how.
const CONNECTION_FLAGS: [&str; 8] = [
    "--target",
    "--context",
    "--context-file",
    "--tls-ca-file",
    "--tls-server-name",
    "--tls-client-certificate-file",
    "--tls-client-key-file",
    "--token-file",
];

/// This command line with this request id.
pub fn repeat(request_id: &str) -> String {
    repeat_of(&arguments(), request_id)
}

/// This command line with this word at its end.
pub fn repeat_with(word: &str) -> String {
    let arguments = arguments();
    let words = ["passbook"].into_iter().chain(arguments.iter().map(String::as_str)).chain([word]);
    quoted(&words.collect::<Vec<_>>())
}

/// `passbook` with these words, on the server of this command line.
pub fn command(words: &[&str]) -> String {
    command_of(&arguments(), words)
}

/// The words behind the name of the program.
fn arguments() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

fn repeat_of(arguments: &[String], request_id: &str) -> String {
    let mut words = vec!["passbook"];
    words.extend(arguments.iter().map(String::as_str));
    let has_id = arguments.iter().any(|it| it.split('=').next() == Some("--request-id"));
    if !has_id {
        words.extend(["--request-id", request_id]);
    }
    quoted(&words)
}

fn command_of(arguments: &[String], words: &[&str]) -> String {
    let mut all = vec!["passbook"];
    all.extend(words);
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        let name = argument.split('=').next().unwrap_or_default();
        if CONNECTION_FLAGS.contains(&name) {
            all.push(argument);
            if !argument.contains('=') {
                all.extend(arguments.next());
            }
        }
    }
    quoted(&all)
}

/// The words as a shell takes them.
fn quoted(words: &[&str]) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=@,+%".contains(letter);
    let quote = |word: &&str| match !word.is_empty() && word.chars().all(is_plain) {
        true => (*word).to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<String> {
        line.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_repeat_has_the_same_arguments_and_the_id() {
        let line = words(&["deposit", "a", "1.00", "USD", "--description", "Ann's rent"]);
        let expected = r"passbook deposit a 1.00 USD --description 'Ann'\''s rent' --request-id r1";
        assert_eq!(repeat_of(&line, "r1"), expected);
        for given in [&["deposit", "--request-id", "r1"][..], &["deposit", "--request-id=r1"]] {
            assert_eq!(repeat_of(&words(given), "r1"), format!("passbook {}", given.join(" ")));
        }
    }

    #[test]
    fn an_advised_command_calls_the_same_server() {
        let line = words(&["deposit", "a", "--target=h:1", "--token-file", "t", "--timeout", "1s"]);
        let expected = "passbook account get a --target=h:1 --token-file t";
        assert_eq!(command_of(&line, &["account", "get", "a"]), expected);
    }
}
