SwaggerUIBundle({
  url: "/openapi.yaml",
  dom_id: "#reference",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  queryConfigEnabled: false, // a link must not select another document
  validatorUrl: null, // the document must not be sent to a validator
});
