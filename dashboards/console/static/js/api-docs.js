// The API's description for people, drawn from /api/openapi.json. Nothing is fetched from anywhere else.
import { html, render } from './ui.js';

const name = (ref) => ref.split('/').at(-1);

/** A schema in a few words, with links to the models it names. */
function Kind({ schema }) {
  if (!schema) return '';
  if (schema.$ref) return html`<a href="#model-${name(schema.$ref)}">${name(schema.$ref)}</a>`;
  if (schema.anyOf) return schema.anyOf.map((one, i) => html`${i ? ' or ' : ''}<${Kind} schema=${one} />`);
  if (schema.type === 'array') return html`list of <${Kind} schema=${schema.items} />`;
  if (schema.enum) return schema.enum.join(' | ');
  if (schema.const !== undefined) return String(schema.const);
  if (schema.additionalProperties?.$ref || schema.additionalProperties?.type) return html`map of <${Kind} schema=${schema.additionalProperties} />`;
  const bounds = [['minimum', '≥'], ['maximum', '≤'], ['maxLength', 'length ≤'], ['pattern', '']].filter(([key]) => schema[key] !== undefined).map(([key, sign]) => ` ${sign} ${schema[key]}`);
  return html`${schema.format ?? schema.type ?? 'any'}<span class="muted">${bounds.join(',')}</span>`;
}

function Operation({ path, method, operation }) {
  const body = operation.requestBody?.content?.['application/json']?.schema;
  return html`<details class="card operation" id=${operation.operationId}><summary><span class="badge method m-${method}">${method.toUpperCase()}</span><code>${path}</code><span class="muted">${operation.summary ?? ''}</span></summary>
    <p>${operation.description}</p>
    ${operation.parameters?.length ? html`<h4>Parameters</h4><div class="table"><table><thead><tr><th>Name</th><th>In</th><th>Type</th><th>Meaning</th></tr></thead>
      <tbody>${operation.parameters.map((item) => html`<tr><td><code>${item.name}</code>${item.required ? ' *' : ''}</td><td>${item.in}</td><td><${Kind} schema=${item.schema} /></td>
      <td>${item.description ?? ''}${item.schema.default !== undefined ? html`<span class="muted"> default ${JSON.stringify(item.schema.default)}</span>` : ''}</td></tr>`)}</tbody></table></div>` : null}
    ${body ? html`<h4>Body</h4><p><${Kind} schema=${body} /></p>` : null}
    <h4>Answers</h4><div class="table"><table><tbody>${Object.entries(operation.responses).map(([status, answer]) => html`<tr><td><code>${status}</code></td><td>${answer.description}</td>
      <td>${Object.values(answer.content ?? {}).map((content) => html`<${Kind} schema=${content.schema} />`)}</td></tr>`)}</tbody></table></div></details>`;
}

function Model({ title, schema }) {
  return html`<details class="card operation schema" id="model-${title}"><summary><code>${title}</code><span class="muted">${schema.description ?? ''}</span></summary>
    <div class="table"><table><tbody>${Object.entries(schema.properties ?? {}).map(([key, property]) => html`<tr><td><code>${key}</code>${schema.required?.includes(key) ? ' *' : ''}</td>
      <td><${Kind} schema=${property} /></td><td>${property.description ?? ''}</td></tr>`)}</tbody></table></div></details>`;
}

function Docs({ spec }) {
  const operations = Object.entries(spec.paths).flatMap(([path, item]) => Object.entries(item).map(([method, operation]) => ({ path, method, operation })));
  const tags = [...new Set(operations.flatMap(({ operation }) => operation.tags ?? ['']))];
  return html`<h1>${spec.info.title} API</h1><p>${spec.info.description} <a href="/api/openapi.json">OpenAPI ${spec.openapi}</a> · <a href="/">Console</a></p>
    ${tags.map((tag) => html`<section><h2>${tag}</h2>${operations.filter(({ operation }) => (operation.tags ?? ['']).includes(tag)).map((item) => html`<${Operation} ...${item} />`)}</section>`)}
    <section><h2>Models</h2>${Object.entries(spec.components?.schemas ?? {}).map(([title, schema]) => html`<${Model} title=${title} schema=${schema} />`)}</section>`;
}

/** Opens the part that the address points to. */
function reveal() {
  const part = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (part) {
    part.open = true;
    part.scrollIntoView();
  }
}

const root = document.getElementById('docs');
const answer = await fetch('/api/openapi.json');
root.textContent = answer.ok ? '' : `${answer.status} ${answer.statusText}`;
if (answer.ok) render(html`<${Docs} spec=${await answer.json()} />`, root);
addEventListener('hashchange', reveal);
reveal();
