//! Templates: a name, and an immutable version for every save.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::StoreError;
use super::sql::{Row, Sql, Statement};
use crate::domain::template::{Template, TemplateBody};
use crate::domain::{TemplateId, TemplateVersion};

/// A version with its time.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedTemplate {
    pub template: Template,
    pub saved_at: Timestamp,
}

#[async_trait]
pub trait Templates: Send + Sync {
    /// Saves a new version, the next number. A body equal to the current one changes nothing and keeps its number.
    async fn save_template(
        &self,
        id: TemplateId,
        body: Arc<TemplateBody>,
        at: Timestamp,
    ) -> Result<SavedTemplate, StoreError>;
    /// The version asked for, or the current one. A deleted template has no current version; old ones stay readable,
    /// because sent notifications name them.
    async fn template(
        &self,
        id: TemplateId,
        version: Option<TemplateVersion>,
    ) -> Result<Option<SavedTemplate>, StoreError>;
    /// Current versions in order of their names, after the given one.
    async fn list_templates(&self, after: Option<TemplateId>, limit: u32) -> Result<Vec<SavedTemplate>, StoreError>;
    /// Whether there was one.
    async fn delete_template(&self, id: TemplateId, at: Timestamp) -> Result<bool, StoreError>;
}

const COLUMNS: &str = "v.template_id, v.version, v.body, v.created_at";

#[async_trait]
impl<S: Sql> Templates for S {
    async fn save_template(
        &self,
        id: TemplateId,
        body: Arc<TemplateBody>,
        at: Timestamp,
    ) -> Result<SavedTemplate, StoreError> {
        const DOING: &str = "saving a template";
        if let Some(current) = self.template(id.clone(), None).await?
            && current.template.body == body
        {
            return Ok(current);
        }
        let text = serde_json::to_string(&*body).map_err(|error| StoreError::refused(DOING, error))?;
        let statements = vec![
            Statement::new(
                "INSERT INTO templates (id, current_version, updated_at) VALUES ($1, 1, $2)
                 ON CONFLICT (id) DO UPDATE SET current_version = templates.current_version + 1,
                     updated_at = excluded.updated_at, deleted_at = NULL",
                vec![id.as_str().into(), at.into()],
            ),
            Statement::new(
                "INSERT INTO template_versions (template_id, version, body, created_at)
                 SELECT id, current_version, $2, $3 FROM templates WHERE id = $1 RETURNING version",
                vec![id.as_str().into(), text.into(), at.into()],
            ),
        ];
        let rows = self.write(DOING, statements).await?;
        let saved = rows[1].first().ok_or_else(|| StoreError::refused(DOING, "no version was written"))?;
        let version = version(saved, 0)?;
        Ok(SavedTemplate { template: Template { id, version, body }, saved_at: at })
    }

    async fn template(
        &self,
        id: TemplateId,
        version: Option<TemplateVersion>,
    ) -> Result<Option<SavedTemplate>, StoreError> {
        let (sql, values) = match version {
            Some(version) => (
                format!("SELECT {COLUMNS} FROM template_versions v WHERE v.template_id = $1 AND v.version = $2"),
                vec![id.as_str().into(), version.0.into()],
            ),
            None => (
                format!(
                    "SELECT {COLUMNS} FROM templates t
                     JOIN template_versions v ON v.template_id = t.id AND v.version = t.current_version
                     WHERE t.id = $1 AND t.deleted_at IS NULL"
                ),
                vec![id.as_str().into()],
            ),
        };
        self.read("reading a template", sql, values).await?.first().map(saved_template).transpose()
    }

    async fn list_templates(&self, after: Option<TemplateId>, limit: u32) -> Result<Vec<SavedTemplate>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM templates t
             JOIN template_versions v ON v.template_id = t.id AND v.version = t.current_version
             WHERE t.deleted_at IS NULL AND t.id > $1 ORDER BY t.id LIMIT $2"
        );
        let after = after.map_or(String::new(), |id| id.as_str().into());
        let rows = self.read("listing templates", sql, vec![after.into(), i64::from(limit).into()]).await?;
        rows.iter().map(saved_template).collect()
    }

    async fn delete_template(&self, id: TemplateId, at: Timestamp) -> Result<bool, StoreError> {
        let update = Statement::new(
            "UPDATE templates SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL RETURNING id",
            vec![id.as_str().into(), at.into()],
        );
        let rows = self.write("deleting a template", vec![update]).await?;
        Ok(!rows[0].is_empty())
    }
}

fn version(row: &Row, column: usize) -> Result<TemplateVersion, StoreError> {
    let version = i32::try_from(row.int(column)?);
    version.map(TemplateVersion).map_err(|error| StoreError::refused("reading a version", error))
}

fn saved_template(row: &Row) -> Result<SavedTemplate, StoreError> {
    const DOING: &str = "reading a template";
    let id = TemplateId::parse(&row.text(0)?).map_err(|error| StoreError::refused(DOING, error))?;
    let body = serde_json::from_str(&row.text(2)?).map_err(|error| StoreError::refused(DOING, error))?;
    let template = Template { id, version: version(row, 1)?, body: Arc::new(body) };
    Ok(SavedTemplate { template, saved_at: row.time(3)? })
}
