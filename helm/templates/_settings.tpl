{{- /*
Settings become variables, secrets become mounted files whose paths are in BILLHOOK_…_FILE. No ConfigMap is in between:
the migration runs before there is one, and a change shows in the pods by itself.
*/ -}}

{{- /* A value as it stands in a variable. YAML's whole numbers are floats here, and print as 1.048576e+06. */ -}}
{{- define "billhook.text" -}}
{{- if kindIs "slice" . }}{{ join "," . -}}
{{- else if kindIs "map" . }}{{ toJson . -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . -}}
{{- else }}{{ . }}{{ end -}}
{{- end -}}

{{- /* Of the root, as JSON: the sources, with that of a trial. */ -}}
{{- define "billhook.sources" -}}
{{- $sources := deepCopy .Values.sources -}}
{{- if .Values.trial.enabled -}}
{{- $_ := set $sources "trial" (dict "provider" "hisab" "secrets" (dict "key" "source-secret")) -}}
{{- end -}}
{{- toJson $sources -}}
{{- end -}}

{{- /* Of {root, values}, as JSON: the settings of a component. */ -}}
{{- define "billhook.settings" -}}
{{- toJson (mergeOverwrite (deepCopy .root.Values.settings) (.values.settings | default dict)) -}}
{{- end -}}

{{- /* Of {root, databaseOnly}, as JSON: every secret that is read: its variable, path, Secret and key. */ -}}
{{- define "billhook.references" -}}
{{- $secret := include "billhook.secret" .root -}}
{{- $keys := .root.Values.existingSecret.keys -}}
{{- if .root.Values.trial.enabled -}}
{{- $keys = dict "databaseUrl" "database-url" "redisUrl" "redis-url" "encryptionKeys" "encryption-keys" "egressProxy" "" "sentryDsn" "" -}}
{{- end -}}
{{- $all := list (dict "variable" "DATABASE_URL" "path" "database-url" "name" $secret "key" $keys.databaseUrl) -}}
{{- if not .databaseOnly -}}
{{- $all = append $all (dict "variable" "REDIS_URL" "path" "redis-url" "name" $secret "key" $keys.redisUrl) -}}
{{- $all = append $all
    (dict "variable" "ENCRYPTION_KEYS" "path" "encryption-keys" "name" $secret "key" $keys.encryptionKeys) -}}
{{- if $keys.egressProxy -}}
{{- $all = append $all
    (dict "variable" "EGRESS_PROXY" "path" "egress-proxy" "name" $secret "key" $keys.egressProxy) -}}
{{- end -}}
{{- if $keys.sentryDsn -}}
{{- $all = append $all (dict "variable" "SENTRY_DSN" "path" "sentry-dsn" "name" $secret "key" $keys.sentryDsn) -}}
{{- end -}}
{{- range $source, $options := include "billhook.sources" .root | fromJson -}}
{{- range $option := list "secrets" "api_key" -}}
{{- with get $options $option -}}
{{- $all = append $all (dict
    "variable" (printf "SOURCES__%s__%s" (upper $source) (upper $option)) "path" (printf "sources/%s/%s" $source $option)
    "name" (.name | default $secret) "key" .key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}

{{- /* Of {root, component, values, listen, port, management, handlers, databaseOnly}: the variables of a container. */ -}}
{{- define "billhook.environment" -}}
- {name: BILLHOOK_STATE_DIR, value: /var/lib/billhook}
{{- range include "billhook.references" . | fromJsonArray }}
- {name: BILLHOOK_{{ .variable }}_FILE, value: /run/secrets/billhook/{{ .path }}}
{{- end }}
{{- with .listen }}
- {name: {{ . }}, value: {{ printf "%s:%d" (include "billhook.podValues" $ | fromJson).listenAddress (int $.port) | quote }}}
{{- end }}
{{- with .management }}
- {name: BILLHOOK_MANAGEMENT, value: {{ quote . }}}
{{- end }}
{{- $settings := include "billhook.settings" . | fromJson }}
{{- if .databaseOnly }}{{ $settings = pick $settings "log_level" "log_format" }}{{ end }}
{{- range $name, $value := $settings }}
- {name: BILLHOOK_{{ upper $name }}, value: {{ include "billhook.text" $value | quote }}}
{{- end }}
{{- if not .databaseOnly }}
{{- range $source, $options := include "billhook.sources" .root | fromJson }}
{{- range $name, $value := omit $options "secrets" "api_key" }}
- {name: BILLHOOK_SOURCES__{{ upper $source }}__{{ upper $name }}, value: {{ include "billhook.text" $value | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- if .handlers }}
{{- with include "billhook.handlers" .root }}
- {name: BILLHOOK_HANDLERS, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- if and .root.Values.otel.endpoint (not .databaseOnly) (not (has .component (list "beat" "test"))) }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ quote .root.Values.otel.endpoint }}}
{{- with .root.Values.otel.env }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- with .values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Of the root, as JSON: the files of handlers, with that of a trial. */ -}}
{{- define "billhook.handlerFiles" -}}
{{- $files := deepCopy .Values.handlers.files -}}
{{- if .Values.trial.enabled }}{{ $_ := set $files "trial_handler.py" (.Files.Get "files/trial_handler.py") }}{{ end -}}
{{- toJson $files -}}
{{- end -}}

{{- /* Of the root: what BILLHOOK_HANDLERS says. */ -}}
{{- define "billhook.handlers" -}}
{{- $all := .Values.handlers.modules -}}
{{- if include "billhook.handlerFiles" . | fromJson }}{{ $all = append $all "/handlers/files/*.py" }}{{ end -}}
{{- if .Values.handlers.volume }}{{ $all = append $all "/handlers/volume/*.py" }}{{ end -}}
{{- join "," $all -}}
{{- end -}}
