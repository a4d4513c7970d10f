//! The documents, and what they tell people to type.

/// A document of the repository.
#[derive(Debug, Clone, Copy)]
pub struct Document {
    /// From the repository's root on.
    pub path: &'static str,
    pub text: &'static str,
}

macro_rules! documents {
    ($($constant:ident = $path:literal;)*) => {
        $(pub const $constant: Document =
            Document { path: $path, text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path)) };)*

        /// Every document but the changelog.
        pub const ALL: &[Document] = &[$($constant),*];
    };
}

documents! {
    README = "README.md";
    CONTRIBUTING = "CONTRIBUTING.md";
    ARCHITECTURE = "docs/architecture.md";
    DEPLOYMENT = "docs/deployment.md";
    DIRECT_WRITERS = "docs/direct-writers.md";
    GRAPHQL = "docs/graphql.md";
    SECURITY = "docs/security.md";
    REST = "docs/rest.md";
}

/// The first line of a block of statements, one a line, that the database is to refuse.
const REFUSED: &str = "-- each of these is refused";

/// Who a block of SQL is for, by its first line; where it says nothing, a program that writes.
const ROLES: [(&str, &str); 3] =
    [("-- as the owner of the tables", "owner"), ("-- as the service", "service"), (ADMINISTRATOR, "administrator")];
const ADMINISTRATOR: &str = "-- as an administrator of the server";

/// A block of SQL, and the role that it is for.
pub struct Sql {
    pub role: &'static str,
    pub text: &'static str,
}

/// A statement that is refused, with the SQLSTATE and the constraint where the document names them.
pub struct Refused {
    pub statement: &'static str,
    pub by: Option<(&'static str, &'static str)>,
}

impl Document {
    /// Its fenced blocks, each with its language, in order.
    fn fences(&self) -> Vec<(&'static str, &'static str)> {
        let mut fences = Vec::new();
        let mut rest = self.text;
        while let Some((_, opened)) = rest.split_once("\n```") {
            let (language, body) = opened.split_once('\n').expect("a fence's line ends");
            let (block, after) = body.split_once("\n```").expect("a fence is closed");
            fences.push((language, block));
            rest = after;
        }
        fences
    }

    /// Its fenced blocks in a language, in order.
    pub fn blocks(&self, language: &str) -> Vec<&'static str> {
        self.fences().into_iter().filter(|(info, _)| *info == language).map(|(_, block)| block).collect()
    }

    /// The SQL that is to be run, in order.
    pub fn sql(&self) -> Vec<Sql> {
        let blocks = self.blocks("sql").into_iter().filter(|block| !block.starts_with(REFUSED));
        blocks
            .map(|text| {
                let role = ROLES.iter().find(|(mark, _)| text.starts_with(mark)).map_or("writer", |(_, role)| role);
                Sql { role, text }
            })
            .collect()
    }

    /// The SQL that the database is to refuse.
    pub fn refused(&self) -> Vec<Refused> {
        let blocks = self.blocks("sql").into_iter().filter_map(|block| block.strip_prefix(REFUSED));
        blocks
            .flat_map(|block| block.trim().lines())
            .map(|line| {
                let (statement, comment) = line.rsplit_once(';').expect("a statement to a line");
                let by =
                    comment.trim().strip_prefix("-- ").map(|by| by.split_once(' ').expect("a SQLSTATE and a name"));
                Refused { statement, by }
            })
            .collect()
    }

    /// The commands of its shell blocks and console sessions, without comments.
    pub fn commands(&self) -> Vec<String> {
        let sessions = self.blocks("console");
        let typed = sessions.iter().flat_map(|session| session.lines()).filter_map(|line| line.strip_prefix("$ "));
        self.blocks("sh").into_iter().chain(typed).flat_map(commands).collect()
    }
}

/// A shell text's commands: a line each, but for line breaks in quotes and behind a backslash.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut command = String::new();
    let mut quote = None;
    let mut characters = text.chars().chain(['\n']);
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, '\\') => {
                characters.next();
                continue;
            }
            (None, '#') if command.is_empty() || command.ends_with(' ') => {
                characters.by_ref().take_while(|character| *character != '\n').for_each(drop);
            }
            _ => {}
        }
        if quote.is_none() && matches!(character, '\n' | '#') {
            let whole = std::mem::take(&mut command);
            commands.extend(Some(whole.trim().to_owned()).filter(|whole| !whole.is_empty()));
        } else {
            command.push(character);
        }
    }
    commands
}

/// SQL's statements, as `psql` would send them one after the other.
pub fn statements(sql: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let (mut start, mut in_text, mut in_comment) = (0, false, false);
    for (at, character) in sql.char_indices() {
        match character {
            '\n' => in_comment = false,
            _ if in_comment => {}
            '\'' => in_text = !in_text,
            '-' if !in_text && sql[at..].starts_with("--") => in_comment = true,
            ';' if !in_text => {
                statements.push(sql[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    statements
}

/// The statements of the deployment's document that an administrator runs.
pub fn administrators_sql() -> &'static str {
    let sql = DEPLOYMENT.sql().into_iter().find(|sql| sql.role == "administrator");
    sql.expect("docs/deployment.md has the administrator's SQL").text
}
