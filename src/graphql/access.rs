//! What a field asks of whoever asks for it. A field says it by a directive, which the schema shows and of which the table in
//! the documents is made, and heeds it in its first line; a test asks for each without the permission that it names.

use async_graphql::{Context, Result, TypeDirective};

use super::error::nullable;
use crate::domain::{Access, Permission, Scope};

/// The permission that a credential must have; without it the field is FORBIDDEN, and null or empty.
#[TypeDirective(location = "FieldDefinition")]
pub fn needs(permission: String) {}

/// Every credential will do.
#[TypeDirective(location = "FieldDefinition")]
pub fn open() {}

/// The scope in which a permission holds; FORBIDDEN where the viewer has it not.
pub fn require<'c>(context: &'c Context<'_>, permission: Permission) -> Result<&'c Scope> {
    Ok(context.data::<Access>()?.require(permission)?)
}

/// The same for a field that is null or empty where it may not be seen: FORBIDDEN is reported at its path.
pub fn permitted<'c>(context: &'c Context<'_>, permission: Permission) -> Option<&'c Scope> {
    nullable(context, require(context, permission).map(Some))
}
