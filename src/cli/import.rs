//! `kport import`: prints the ports that another manager has published, as commands of kport.

use std::fmt::Write as _;

use crate::error::{Error, Kind, Result, error, printable};
use crate::managers::{Command, Imported, by_jail};
use crate::name::JailName;
use crate::options::Given;

use super::args::{Global, ImportArgs};
use super::change::change;
use super::output::{print, word};
use super::text;

pub fn run(global: &Global, args: &ImportArgs) -> Result<()> {
    let mut ports = vec![];
    for file in &args.files {
        ports.extend((args.manager.read)(file, &text)?);
    }
    let import = by_jail(ports, args.jail.as_ref())?;
    if args.publish {
        let unread = import.unread.iter().map(|why| Error::new(Kind::Unsupported, why));
        let failed = import.jails.iter().filter_map(|(jail, of)| publish(global, jail, of).err());
        return Error::all(failed.chain(unread));
    }
    let mut commands = String::new();
    import.unread.iter().for_each(|why| comment(&mut commands, why));
    for (jail, of) in &import.jails {
        show(&mut commands, jail, of, args.lines);
    }
    print(&commands)?;
    match import.unpublished() {
        0 => Ok(()),
        1 => Err(Error::new(Kind::Unsupported, "one entry was not imported, see its comment")),
        n => Err(error!(Unsupported, "{n} entries were not imported, see their comments")),
    }
}

/// A comment of the script, on one line whatever it holds: names of files and lines of others are in it.
fn comment(text: &mut String, why: &str) {
    _ = writeln!(text, "# {}", printable(why));
}

/// The commands of a jail, or its lines.
fn show(text: &mut String, jail: &JailName, of: &Imported, lines: bool) {
    of.notes.iter().chain(&of.unsupported).for_each(|why| comment(text, why));
    if lines {
        return of.commands.iter().for_each(|command| line(text, jail, command));
    }
    for (number, command) in of.commands.iter().enumerate() {
        let mut words = vec!["kport publish".to_owned()];
        words.extend((number > 0).then(|| "--add".to_owned()));
        words.extend(options(command, word));
        words.extend(jail.as_str().starts_with('-').then(|| "--".to_owned()));
        words.push(word(jail.as_str()));
        words.extend(command.specs.iter().map(|spec| word(spec)));
        _ = writeln!(text, "{}", words.join(" "));
    }
}

/// The options of a command, with their values quoted.
fn options(command: &Command, quoted: impl Fn(&str) -> String) -> Vec<String> {
    let option = |(name, given): &(_, Given)| match given {
        Given::Flag(_) => vec![format!("--{name}")],
        Given::Text(value) => vec![format!("--{name} {}", quoted(value))],
        Given::List(values) => values.iter().map(|value| format!("--{name} {}", quoted(value))).collect(),
    };
    command.options.iter().flat_map(option).collect()
}

/// A line of kport.conf(5). A jail whose name such a line cannot hold is a comment.
fn line(text: &mut String, jail: &JailName, command: &Command) {
    let quoted = |word: &str| match word.contains(char::is_whitespace) || word.starts_with(['#', '"']) {
        true => format!("\"{word}\""),
        false => word.to_owned(),
    };
    let mut words: Vec<String> = command.specs.iter().map(|spec| quoted(spec)).collect();
    words.extend(options(command, quoted));
    let line = format!("{} {}", quoted(jail.as_str()), words.join(" "));
    match crate::conf::Conf::parse("line", &line) {
        Ok(_) => _ = writeln!(text, "{line}"),
        Err(error) => comment(text, &format!("{line}: {error}")),
    }
}

/// Publishes in one transaction, even if the jail's ports have different options.
fn publish(global: &Global, jail: &JailName, of: &Imported) -> Result<()> {
    let about = |error: Error| error.context(format_args!("jail \"{jail}\""));
    if of.commands.is_empty() && of.unsupported.is_empty() {
        return Ok(());
    }
    let requests = of.requests(jail).map_err(about)?;
    change(global, |publisher| publisher.publish_all(&requests).map_err(about)).map(drop)
}
