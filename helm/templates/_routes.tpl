{{- /* Of {root, component, values}: what leads from outside to the Service of a component. */ -}}
{{- define "billhook.ingress" -}}
{{- $backend := printf "%s-%s" (include "billhook.fullname" .root) .component -}}
{{- with .values -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
{{ include "billhook.metadata" (dict "root" $.root "component" $.component "annotations" .annotations) }}
spec:
  {{- with .className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- if .tlsSecret }}
  tls:
    - secretName: {{ .tlsSecret }}
      hosts:
        {{- toYaml .hosts | nindent 8 }}
  {{- end }}
  rules:
    {{- range .hosts }}
    - host: {{ quote . }}
      http:
        paths:
          {{- range $.values.paths }}
          - path: {{ quote . }}
            pathType: Prefix
            backend:
              service:
                name: {{ $backend }}
                port: {name: http}
          {{- end }}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "billhook.httpRoute" -}}
{{- with .values -}}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
{{ include "billhook.metadata" (dict "root" $.root "component" $.component "annotations" .annotations) }}
spec:
  parentRefs:
    {{- toYaml .parentRefs | nindent 4 }}
  {{- with .hostnames }}
  hostnames:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    - matches:
        {{- range .paths }}
        - path: {type: PathPrefix, value: {{ quote . }}}
        {{- end }}
      backendRefs:
        - name: {{ include "billhook.fullname" $.root }}-{{ $.component }}
          port: {{ int $.port }}
{{- end }}
{{- end -}}
