{{- /* Of the root, as JSON: peers that are all public addresses, of IPv4 and of IPv6. */ -}}
{{- define "billhook.public" -}}
{{- $four := list -}}
{{- $six := list -}}
{{- range .Values.networkPolicy.privateNetworks -}}
{{- if contains ":" . }}{{ $six = append $six . }}{{ else }}{{ $four = append $four . }}{{ end -}}
{{- end -}}
{{- toJson (list
    (dict "ipBlock" (dict "cidr" "0.0.0.0/0" "except" $four)) (dict "ipBlock" (dict "cidr" "::/0" "except" $six))) -}}
{{- end -}}

{{- /* Of {root, component}, as JSON: peers that are this component's pods. */ -}}
{{- define "billhook.pods" -}}
{{- toJson (list (dict "podSelector" (dict "matchLabels" (include "billhook.selector" . | fromYaml)))) -}}
{{- end -}}

{{- /* Of {to, ports}: one egress rule over TCP. */ -}}
{{- define "billhook.egress" -}}
- {{ with .to }}to:
    {{- toYaml . | nindent 4 }}
  {{ end -}}
  {{- with .ports }}ports:
    {{- range . }}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
  {{- end }}
{{- end -}}

{{- /*
The NetworkPolicy of a component. Of {root, component, values} and, where they apply: port and from (what may be reached,
and by whom), redis, public (ports of public addresses, or "*"), more (egress rules of the component's own).
*/ -}}
{{- define "billhook.networkPolicy" -}}
{{- $root := .root -}}
{{- $policy := $root.Values.networkPolicy -}}
{{- $trial := $root.Values.trial.enabled -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
{{ include "billhook.metadata" . }}
spec:
  podSelector:
    matchLabels:
      {{- include "billhook.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- if .port }}
  ingress:
    - ports:
        - {protocol: TCP, port: {{ .port }}}
      {{- with .from }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
  {{- end }}
  egress:
    - to:
        {{- toYaml $policy.dns.to | nindent 8 }}
      ports:
        {{- range $policy.dns.ports }}
        - {protocol: UDP, port: {{ int . }}}
        - {protocol: TCP, port: {{ int . }}}
        {{- end }}
    {{- $database := $policy.database }}
    {{- $redis := $policy.redis }}
    {{- if $trial }}
    {{- $pods := dict "root" $root "component" "postgresql" }}
    {{- $database = dict "to" (include "billhook.pods" $pods | fromJsonArray) "ports" (list 5432) }}
    {{- $pods = dict "root" $root "component" "valkey" }}
    {{- $redis = dict "to" (include "billhook.pods" $pods | fromJsonArray) "ports" (list 6379) }}
    {{- end }}
    {{- include "billhook.egress" $database | nindent 4 }}
    {{- if .redis }}
    {{- include "billhook.egress" $redis | nindent 4 }}
    {{- end }}
    {{- if and .redis $policy.collector.to }}
    {{- include "billhook.egress" $policy.collector | nindent 4 }}
    {{- end }}
    {{- with .public }}
    {{- $ports := ternary (list) . (has "*" .) }}
    {{- include "billhook.egress" (dict "to" (include "billhook.public" $root | fromJsonArray) "ports" $ports) | nindent 4 }}
    {{- end }}
    {{- with .more }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .values.egress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
